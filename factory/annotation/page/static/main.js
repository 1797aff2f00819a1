// Starts the page and wires buttons and keys to the editor.

import * as api from "./api.js";
import {Editor} from "./editor.js";
import * as panels from "./panels.js";
import {connectCursor, connectPointers} from "./pointing.js";
import {Saver} from "./saving.js";
import {acceptAll, tools as makeTools} from "./tools.js";
import {View} from "./view.js";

const {find, say} = panels;
const RETRY_MS = 1000;
const TOOL_KEYS = {b: "brush", e: "eraser", p: "polygon", f: "fill", g: "region", a: "accept", h: "pan"};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const project = await connected(api.project);
const colours = panels.shownColours(project.palette);
const settings = {id: Math.min(1, project.classes.length - 1), size: 9, tolerance: 100, protect: false};
const view = new View(find("view"), colours);
let news = null, isHidden = false;

const saver = new Saver(project.key, {
  say,
  changed: (drawing) => { if (drawing === editor.drawing) { editor.repaint(); refresh(); } },
  report: (state, _, error) => panels.showSaved(state, error),
});
const editor = new Editor({project, view, saver, settings, say, onImage, onChange: refresh});
const tools = makeTools(editor);
const tool = () => tools[editor.tool];

document.title = `${project.title} – annotate`;
find("title").textContent = project.title;
panels.listClasses(project, colours, chooseClass);
panels.listImages(project, open);
chooseClass(settings.id);
chooseTool("brush");
const sliders = {
  size: panels.slider("size", (v) => `${v} px`, (v) => { settings.size = v; editor.hover(editor.shape.at); }),
  tolerance: panels.slider("tolerance", (v) => (v < 100 ? `± ${v} %` : "class edges"), (v) => { settings.tolerance = v; }),
  opacity: panels.slider("opacity", (v) => `${v} %`, (v) => { isHidden = false; view.opacity(v / 100); }),
};
find("protect").addEventListener("change", (event) => { settings.protect = event.target.checked; });
editor.onPlace = () => { find("zoom").textContent = `${Math.round(100 * view.scale)} %`; };
connectPointers(editor, tool);
connectCursor(editor, tool);
connectButtons();
document.addEventListener("keydown", onKey);
panels.showSaved("saved");
watch();
addEventListener("hashchange", () => { if (asked() && asked() !== editor.opening) open(asked()); });
await open(asked() ?? project.images[0]);

/** The image that the address names. */
function asked() { return project.images.find((name) => name === decodeURIComponent(location.hash.slice(1))); }

/** The answer of a request, repeated until the server can be reached. */
async function connected(request) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      panels.showSaved("offline", error);
      await sleep(RETRY_MS);
    }
  }
}

/** Follow the server: a request is always waiting for news, and starts again after a restart. */
async function watch() {
  for (;;) {
    news = await connected(() => api.state(news?.seen ?? ""));
    if (!saver.running) panels.showSaved("saved");
    refresh();
    if (!editor.drawing && editor.opening && news.images[editor.opening]?.progress !== "unreadable") open(editor.opening);
    editor.follow(news).catch(() => {}); // the next news repeats it
  }
}

async function open(name) {
  editor.lift?.();
  tool().cancel?.();
  await editor.open(name).catch(() => {});
}

function onImage(drawing) {
  history.replaceState(null, "", `#${encodeURIComponent(drawing.name)}`);
  view.element.dataset.name = drawing.name;
  delete view.element.dataset.proposal;
  view.element.setAttribute("aria-label", `Picture ${drawing.name}`);
  find("images").querySelector(`[data-name="${CSS.escape(drawing.name)}"]`)?.scrollIntoView({block: "nearest", inline: "nearest"});
  if (news) editor.propose(news.assist).catch(() => {});
}

function refresh() {
  const {drawing, proposal} = editor;
  find("undo").disabled = !drawing?.done.length;
  find("redo").disabled = !drawing?.undone.length;
  find("accept-all").disabled = !proposal || !drawing.undrawn;
  if (!news) return;
  panels.showProgress(news, drawing?.name);
  panels.showAssist(news.assist, project.hint, proposal);
}

function chooseClass(id) {
  settings.id = id;
  panels.press(find("classes"), "id", id);
}

function chooseTool(name) {
  editor.lift?.();
  tool()?.cancel?.();
  editor.tool = name;
  view.element.dataset.tool = name;
  panels.press(find("tools"), "tool", name);
  editor.outline({});
}

function step(by) {
  const at = project.images.indexOf(editor.drawing?.name ?? editor.opening);
  open(project.images[(at + by + project.images.length) % project.images.length]);
}

async function openNext() {
  try {
    const {name, reason} = await api.next(editor.drawing?.name ?? "");
    if (!name) return say("Nothing is left: every other image is finished.");
    await open(name);
    return say(`${name}: ${reason}.`);
  } catch (error) {
    return say(error instanceof api.Refused ? error.message : "The server does not answer.");
  }
}

async function toggleFinished() {
  const {drawing} = editor, isFinished = find("finished").getAttribute("aria-pressed") === "true";
  if (isFinished && !drawing.undrawn) return say("Every pixel is drawn: erase some to go on.");
  return api.finish(drawing.name, !isFinished).catch(() => say("Not saved: the server does not answer."));
}

function connectButtons() {
  for (const button of find("tools").querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => chooseTool(button.dataset.tool));
  }
  const does = {
    undo: () => editor.undo(), redo: () => editor.redo(),
    "zoom-in": () => view.zoom(1.4), "zoom-out": () => view.zoom(1 / 1.4), "zoom-fit": () => view.fit(),
    "accept-all": () => acceptAll(editor), next: openNext, finished: toggleFinished,
    "help-button": () => find("help").showModal(), "help-close": () => find("help").close(),
  };
  for (const [id, act] of Object.entries(does)) find(id).addEventListener("click", act);
}

function onKey(event) {
  if (find("help").open || !editor.drawing) return;
  const key = event.key, isButton = event.target.matches?.("button, input, summary");
  if (event.ctrlKey || event.metaKey) {
    const letter = key.toLowerCase();
    if (letter === "z") event.shiftKey ? editor.redo() : editor.undo();
    else if (letter === "y") editor.redo();
    else return;
  } else if (event.altKey) return;
  else if (key === "Enter" && !isButton) {
    if (tool().isOpen) tool().enter();
    else acceptAll(editor);
  } else if (key >= "1" && key <= "9") {
    if (Number(key) <= project.classes.length) chooseClass(Number(key) - 1);
  } else if (TOOL_KEYS[key.toLowerCase()]) chooseTool(TOOL_KEYS[key.toLowerCase()]);
  else if (!act(key)) return;
  event.preventDefault();
}

/** The other keys; false for one that means nothing. */
function act(key) {
  const keys = {
    "?": () => find("help").showModal(),
    Escape: () => { tool().cancel?.(); editor.lift(); },
    Backspace: () => tool().back?.(),
    "[": () => sliders.size.step(-2), "]": () => sliders.size.step(2),
    ",": () => sliders.opacity.step(-10), ".": () => sliders.opacity.step(10),
    "+": () => view.zoom(1.4), "=": () => view.zoom(1.4), "-": () => view.zoom(1 / 1.4), 0: () => view.fit(),
    PageUp: () => step(-1), PageDown: () => step(1),
    n: openNext, d: toggleFinished,
    v: () => { isHidden = !isHidden; view.opacity(isHidden ? 0 : find("opacity").value / 100); },
  };
  const found = keys[key] ?? keys[key.toLowerCase()];
  found?.();
  return Boolean(found);
}
