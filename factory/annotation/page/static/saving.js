// Saves every stroke: keeps it in the browser, sends it, and forgets it once the server has it.

import * as api from "./api.js";
import {forget, keep, recover} from "./keeping.js";
import {cut, paste, union} from "./raster.js";

const RETRY_MS = [300, 1000, 2000, 4000];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Saver {
  /** `changed(drawing)` after a newer mask was taken over; `report(state, count)`; `say(text)`. */
  constructor(project, {changed, report, say}) {
    Object.assign(this, {project, changed, report, say});
    this.queue = new Map(); // drawings with something to save
    this.running = false;
  }

  isSaving(drawing) { return this.queue.has(drawing.name); }

  /** Save what is unsaved of a drawing, now or as soon as the server answers. */
  save(drawing) {
    if (!drawing.unsaved) return;
    this.queue.set(drawing.name, drawing);
    this.#keep(drawing);
    if (!this.running) this.#run();
  }

  #keep(drawing) {
    const box = drawing.unsaved;
    return keep(this.project, drawing.name, {
      box, ids: cut(drawing.ids, drawing, box), saved: cut(drawing.saved, drawing, box),
      base: drawing.revision,
    });
  }

  async #run() {
    this.running = true;
    let failures = 0;
    while (this.queue.size) {
      const drawing = this.queue.values().next().value;
      this.report(failures ? "offline" : "saving", this.queue.size);
      try {
        await this.#send(drawing);
        failures = 0;
      } catch (error) {
        if (error instanceof api.Refused && error.status !== 401) {
          this.say(`Not saved: ${error.message}. The image was read again; redraw the stroke.`);
          await this.#reload(drawing).catch(() => {});
          this.queue.delete(drawing.name);
          continue;
        }
        this.report("offline", this.queue.size, error);
        await sleep(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
      }
    }
    this.running = false;
    this.report("saved", 0);
  }

  async #send(drawing) {
    const box = drawing.unsaved;
    if (box && !drawing.isDrawing) {
      const bytes = cut(drawing.ids, drawing, box);
      drawing.unsaved = null;
      try {
        drawing.confirm(box, bytes, await api.draw(drawing.name, drawing.revision, box, bytes));
      } catch (error) {
        drawing.unsaved = union(drawing.unsaved, box);
        if (error.status !== 409) throw error;
        await this.#rebase(drawing);
      }
    } else if (box) {
      await sleep(50); // the next stroke has begun: its bytes are not final
      return;
    }
    if (!drawing.unsaved) {
      this.queue.delete(drawing.name);
      await forget(this.project, drawing.name);
    }
  }

  /** Another tab or program was first: its version, with this page's stroke laid over it. */
  async #rebase(drawing) {
    const found = await api.mask(drawing.name);
    const laid = drawing.rebase(found.bytes, found.revision);
    this.changed(drawing);
    this.say(laid
      ? "This image was changed in another tab. It was read again, with your last stroke on top: undo removes it."
      : "This image was changed in another tab and was read again.");
  }

  async #reload(drawing) {
    const found = await api.mask(drawing.name);
    drawing.saved = drawing.ids.slice();
    drawing.rebase(found.bytes, found.revision);
    this.changed(drawing);
  }

  /** Put strokes that never reached the server onto a drawing that was just read. */
  async restore(drawing) {
    let restored = 0;
    for (const {box, ids, saved, base} of await recover(this.project, drawing.name)) {
      const fits = box.x + box.width <= drawing.width && box.y + box.height <= drawing.height;
      if (!fits) continue;
      const mine = ids.slice(), now = cut(drawing.ids, drawing, box);
      // On a newer version, only what the stroke changed.
      if (base !== drawing.revision) mine.forEach((id, i) => { if (id === saved[i]) mine[i] = now[i]; });
      if (drawing.edit((all) => (paste(all, drawing, box, mine), box))) restored++;
    }
    if (restored) {
      this.say("Strokes that had not been saved were put back.");
      this.save(drawing);
    }
  }
}
