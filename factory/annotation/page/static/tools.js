// What the tools do at points of the picture. A tool has `down`, `move`, `up` (a pointer, or the
// keyboard's cursor, pressed at `point`) and may have `cancel`, `enter` and `back`.

import * as api from "./api.js";
import {UNDRAWN, connected, cut, polygon, sweep, whole} from "./raster.js";

const CLICK_PX = 3; // a pointer that moved less has clicked
const CLOSE_PX = 9; // to the first corner, which closes a polygon

const index = (grid, p) => Math.floor(p.y) * grid.width + Math.floor(p.x);
const isInside = (grid, p) => p.x >= 0 && p.y >= 0 && p.x < grid.width && p.y < grid.height;

/** All tools, on an `editor`: drawing, proposal, view, settings, `changed(box)`, `say(text)`. */
export function tools(editor) {
  return {
    brush: stroke(editor, (now, i) => {
      if (!editor.settings.protect || now[i] === UNDRAWN) now[i] = editor.settings.id;
    }),
    eraser: stroke(editor, (now, i) => { now[i] = UNDRAWN; }),
    accept: acceptBrush(editor),
    polygon: polygonTool(editor),
    fill: click((point) => fill(editor, point)),
    region: regionTool(editor),
    pan: {down() {}, move() {}, up() {}},
  };
}

/** A brush that does `paint(ids, index)` to the pixels below it. */
function stroke(editor, paint) {
  let last = null;
  const to = (point) => {
    const {drawing} = editor;
    const box = sweep(drawing, last ?? point, point, editor.settings.size, (i) => paint(drawing.ids, i));
    last = point;
    if (box) { drawing.touch(box); editor.paint(box); }
  };
  return {
    sweeps: true,
    down(point) { last = null; editor.drawing.begin(); to(point); },
    move(point) { if (editor.drawing.isDrawing) to(point); },
    up() { editor.changed(editor.drawing.commit()); },
    cancel() { const box = editor.drawing?.cancel(); if (box) editor.paint(box); },
  };
}

/** Accepts what is proposed below the brush; a click accepts the connected region. */
function acceptBrush(editor) {
  const brush = stroke(editor, (now, i) => {
    const proposed = editor.proposal?.ids[i];
    if (proposed !== undefined && now[i] === UNDRAWN) now[i] = proposed;
  });
  let start = null, isClick = true;
  return {
    ...brush,
    down(point) {
      if (!editor.proposal) return editor.say("Nothing is proposed yet: draw two classes first.");
      start = point;
      isClick = true;
      return brush.down(point);
    },
    move(point) {
      if (start && Math.hypot(point.x - start.x, point.y - start.y) * editor.view.scale > CLICK_PX) isClick = false;
      brush.move(point);
    },
    up(point) {
      if (!start) return;
      if (isClick && isInside(editor.drawing, start)) {
        brush.cancel();
        acceptConnected(editor, index(editor.drawing, start));
      } else brush.up(point);
      start = null;
    },
    cancel() { start = null; brush.cancel(); },
  };
}

function acceptConnected(editor, at) {
  const {drawing, proposal} = editor, id = proposal.ids[at];
  if (drawing.ids[at] !== UNDRAWN) return editor.say("This is drawn already.");
  const {found, box} = connected(drawing, at, (i) => proposal.ids[i] === id && drawing.ids[i] === UNDRAWN);
  editor.changed(drawing.edit((now) => {
    found.forEach((is, i) => { if (is) now[i] = id; });
    return box;
  }));
}

/** Accept everything that is proposed where nothing is drawn. */
export function acceptAll(editor) {
  const {drawing, proposal} = editor;
  if (!proposal) return editor.say("Nothing is proposed yet: draw a little of two classes first.");
  const box = drawing.edit((now) => {
    for (let i = 0; i < now.length; i++) if (now[i] === UNDRAWN) now[i] = proposal.ids[i];
    return whole(drawing);
  });
  if (!box) return editor.say("Everything is drawn already.");
  editor.say("Accepted. Correct what is wrong; undo takes all of it back.");
  return editor.changed(box);
}

function click(use) {
  return {down(point) { use(point); }, move() {}, up() {}};
}

/** The connected pixels like the one at `point`: of its class, or undrawn, and of similar colour. */
function similar(editor, point) {
  const {drawing, view} = editor, at = index(drawing, point), id = drawing.ids[at];
  const {tolerance} = editor.settings, colour = view.colour;
  const most = (tolerance / 100) * 255;
  return connected(drawing, at, (i) => {
    if (drawing.ids[i] !== id) return false;
    if (tolerance >= 100) return true;
    for (let c = 0; c < 3; c++) if (Math.abs(colour[4 * i + c] - colour[4 * at + c]) > most) return false;
    return true;
  });
}

function fill(editor, point) {
  const {drawing} = editor;
  if (!isInside(drawing, point)) return;
  const {found, box} = similar(editor, point);
  editor.changed(drawing.edit((now) => {
    found.forEach((is, i) => { if (is) now[i] = editor.settings.id; });
    return box;
  }));
}

function polygonTool(editor) {
  let corners = [], open = null;
  const show = () => editor.outline({corners, open});
  const end = () => { corners = []; open = null; show(); };
  const close = () => {
    if (corners.length < 3) { editor.say("A polygon needs three corners."); return; }
    const {drawing} = editor, points = corners, {id, protect} = editor.settings;
    end();
    editor.changed(drawing.edit((now) => polygon(drawing, points, (i) => {
      if (!protect || now[i] === UNDRAWN) now[i] = id;
    })));
  };
  return {
    get isOpen() { return corners.length > 0; },
    down(point, {double} = {}) {
      const first = corners[0], near = CLOSE_PX / editor.view.scale;
      const closes = first && Math.hypot(point.x - first.x, point.y - first.y) <= near;
      if (corners.length > 2 && (double || closes)) return close();
      corners = [...corners, point];
      return show();
    },
    move(point) { if (corners.length) { open = point; show(); } },
    up() {},
    enter() { if (corners.length) close(); },
    back() { corners = corners.slice(0, -1); show(); },
    cancel: end,
    redraw: show,
  };
}

/** Proposes a connected region of the class at hand; a second click inside, or Enter, accepts it. */
function regionTool(editor) {
  const accept = () => {
    const {drawing, region} = editor;
    editor.region = null;
    editor.changed(drawing.edit((now) => {
      region.found.forEach((is, i) => { if (is) now[i] = region.id; });
      return whole(drawing);
    }));
  };
  return {
    get isOpen() { return Boolean(editor.region); },
    async down(point) {
      const {drawing, settings} = editor;
      if (!isInside(drawing, point)) return;
      if (editor.region?.found[index(drawing, point)]) { accept(); return; }
      const answer = await api.region(drawing.name, Math.floor(point.x), Math.floor(point.y), settings.id).catch(() => null);
      if (editor.drawing !== drawing) return;
      const found = answer ? answer.bytes : similar(editor, point).found;
      // What is drawn stays, except a click on something drawn, which means to replace it.
      if (drawing.ids[index(drawing, point)] === UNDRAWN) found.forEach((_, i) => { if (drawing.ids[i] !== UNDRAWN) found[i] = 0; });
      editor.region = {found, id: settings.id};
      editor.paintProposal();
      editor.say(`${answer ? "The labeler's region" : "A region of similar colour"}: click it again, or Enter, to accept; Esc to drop it.`);
    },
    move() {},
    up() {},
    enter() { if (editor.region) accept(); },
    cancel() { if (editor.region) { editor.region = null; editor.paintProposal(); } },
  };
}
