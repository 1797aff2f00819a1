// Requests to the server. A fetch that fails to connect throws TypeError; an answer that refuses
// throws Refused with its line.

export class Refused extends Error {
  constructor(message, status, body) { super(message); this.status = status; this.body = body; }
}

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const text = await answer.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* a line of text */ }
  throw new Refused(body?.message ?? text, answer.status, body);
}

const image = (name) => `/api/images/${encodeURIComponent(name)}`;

async function pixels(path) {
  const answer = await ask(path);
  if (answer.status === 204) return null;
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const number = (header) => Number(answer.headers.get(header));
  return {
    bytes, width: number("X-Width"), height: number("X-Height"), version: number("X-Version"),
    revision: answer.headers.get("X-Revision"),
  };
}

export const project = async () => (await ask("/api/project")).json();
export const state = async (seen) => (await ask(`/api/state?seen=${encodeURIComponent(seen)}`)).json();
export const next = async (after) => (await ask(`/api/next?after=${encodeURIComponent(after)}`)).json();
export const thumbnail = (name) => `${image(name)}/thumb.png`;
export const mask = (name) => pixels(`${image(name)}/mask`);
export const proposal = (name) => pixels(`${image(name)}/proposal`);
export const region = (name, x, y, id) => pixels(`${image(name)}/region?x=${x}&y=${y}&id=${id}`);

export async function picture(name) {
  return createImageBitmap(await (await ask(`${image(name)}/picture.png`)).blob());
}

/** Save a rectangle of a mask into revision `base`; the new revision. */
export async function draw(name, base, box, bytes) {
  const query = `x=${box.x}&y=${box.y}&w=${box.width}&h=${box.height}&base=${base}`;
  const answer = await ask(`${image(name)}/mask?${query}`, {method: "PUT", body: bytes});
  return (await answer.json()).revision;
}

export const finish = (name, is) => ask(`${image(name)}/finished?is=${is ? 1 : 0}`, {method: "PUT"});
