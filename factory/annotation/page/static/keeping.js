// Strokes that the server has not confirmed, kept in the browser: a reload or a crash of either side
// loses none of them.

const TAB = String(Math.random()).slice(2);

const database = new Promise((resolve) => {
  const request = indexedDB.open("factory-annotate", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("strokes");
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => resolve(null); // private windows of some browsers
});

async function run(mode, use) {
  const opened = await database;
  if (!opened) return undefined;
  return new Promise((resolve) => {
    const transaction = opened.transaction("strokes", mode);
    const request = use(transaction.objectStore("strokes"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => resolve(undefined);
  });
}

const prefix = (project, name) => `${project}\n${name}\n`;

/** Keep the bytes `ids` of a box and what was below them, `saved`. */
export const keep = (project, name, stroke) =>
  run("readwrite", (store) => store.put(stroke, prefix(project, name) + TAB));

export const forget = (project, name) =>
  run("readwrite", (store) => store.delete(prefix(project, name) + TAB));

/** What any tab has kept for an image; it is forgotten by this call. */
export async function recover(project, name) {
  const range = IDBKeyRange.bound(prefix(project, name), `${prefix(project, name)}\uffff`);
  const found = (await run("readonly", (store) => store.getAll(range))) ?? [];
  if (found.length) await run("readwrite", (store) => store.delete(range));
  return found;
}
