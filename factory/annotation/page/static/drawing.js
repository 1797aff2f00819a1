// The mask of one image in this page: what is drawn, what the server has, and what can be undone.

import {UNDRAWN, cut, paste, union, whole} from "./raster.js";

const UNDO_BYTES = 64 * 2 ** 20, UNDO_STEPS = 400;

export class Drawing {
  constructor(name, width, height, ids, revision) {
    Object.assign(this, {name, width, height, ids, revision});
    this.saved = ids.slice(); // what the server has
    this.unsaved = null; // the box that differs from it
    this.done = [];
    this.undone = [];
    this.before = null; // during a stroke
    this.touched = null;
  }

  get isDrawing() { return this.before !== null; }

  begin() { this.before = this.ids.slice(); this.touched = null; }

  /** What a stroke changed: its box counts as touched. */
  touch(box) { this.touched = union(this.touched, box); }

  /** Take back a stroke that is under way; the box to paint again. */
  cancel() {
    const box = this.touched;
    if (this.before && box) paste(this.ids, this, box, cut(this.before, this, box));
    this.before = this.touched = null;
    return box;
  }

  /** End a stroke; its box, or null if it changed nothing. */
  commit() {
    const box = this.touched, before = this.before;
    this.before = this.touched = null;
    if (!box) return null;
    const step = {box, before: cut(before, this, box), after: cut(this.ids, this, box)};
    if (step.before.every((id, i) => id === step.after[i])) return null;
    this.done.push(step);
    this.undone = [];
    let bytes = 0;
    for (let i = this.done.length - 1; i >= 0; i--) {
      bytes += 2 * this.done[i].after.length;
      if (bytes > UNDO_BYTES || this.done.length - i > UNDO_STEPS) { this.done.splice(0, i + 1); break; }
    }
    this.unsaved = union(this.unsaved, box);
    return box;
  }

  /** A whole change at once: `change(ids)` returns the box that it touched. */
  edit(change) { this.begin(); this.touch(change(this.ids)); return this.commit(); }

  undo() { return this.#step(this.done, this.undone, "before"); }

  redo() { return this.#step(this.undone, this.done, "after"); }

  #step(from, to, side) {
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    paste(this.ids, this, step.box, step[side]);
    this.unsaved = union(this.unsaved, step.box);
    return step.box;
  }

  /** The server has these bytes of a box now. */
  confirm(box, bytes, revision) { paste(this.saved, this, box, bytes); this.revision = revision; }

  /**
   * Take over a newer mask of the server, and lay over it what this page has changed since it last
   * saved. True if there was such a change: it is one step that can be undone.
   */
  rebase(ids, revision) {
    const changed = [];
    for (let i = 0; i < ids.length; i++) if (this.ids[i] !== this.saved[i]) changed.push([i, this.ids[i]]);
    this.ids = ids;
    this.saved = ids.slice();
    this.revision = revision;
    this.done = [];
    this.undone = [];
    this.unsaved = null;
    if (!changed.length) return false;
    this.edit((now) => {
      for (const [i, id] of changed) now[i] = id;
      return whole(this);
    });
    return true;
  }

  get undrawn() { return this.ids.includes(UNDRAWN); }
}
