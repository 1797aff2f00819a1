// One image at a time: loads it, shows it, and passes on what the tools did to it.

import * as api from "./api.js";
import {Drawing} from "./drawing.js";
import {whole} from "./raster.js";

export class Editor {
  constructor({project, view, saver, settings, say, onImage, onChange}) {
    Object.assign(this, {project, view, saver, settings, say, onImage, onChange});
    this.drawings = new Map(); // of this session, with what can be undone
    this.drawing = null;
    this.proposal = null;
    this.region = null; // proposed by a click: {found, id}
    this.tool = "brush";
    this.cursor = {x: 0, y: 0, isShown: false};
    this.proposalVersion = -1; // asked for
    this.shape = {};
    view.onPlace = () => { this.#draw(); this.onPlace?.(); };
  }

  /** Open an image; what could not be read is said. */
  async open(name) {
    this.opening = name;
    try {
      const [bitmap, mask] = await Promise.all([api.picture(name), api.mask(name)]);
      if (this.opening !== name) return;
      let drawing = this.drawings.get(name);
      if (!drawing) {
        drawing = new Drawing(name, mask.width, mask.height, mask.bytes, mask.revision);
        this.drawings.set(name, drawing);
      } else if (!this.saver.isSaving(drawing) && drawing.revision !== mask.revision) {
        drawing.rebase(mask.bytes, mask.revision);
      }
      this.drawing = drawing;
      this.proposal = this.region = null;
      this.proposalVersion = -1;
      this.shape = {};
      Object.assign(this.cursor, {x: Math.floor(mask.width / 2), y: Math.floor(mask.height / 2)});
      this.view.show(bitmap);
      this.repaint();
      this.onImage(drawing);
      await this.saver.restore(drawing);
      this.repaint();
      this.onChange();
    } catch (error) {
      if (this.opening === name) this.say(error instanceof api.Refused ? error.message : "The server does not answer. The page tries again.");
      throw error;
    }
  }

  repaint() {
    this.view.paintDrawn(this.drawing);
    this.paintProposal();
  }

  /** Paint a box while a stroke is under way. */
  paint(box) {
    this.view.paintDrawn(this.drawing, box);
    this.paintProposal(box);
  }

  paintProposal(box = whole(this.drawing)) {
    const {region, proposal} = this;
    this.view.paintProposed(this.drawing, region ? over(region, proposal, this.drawing) : proposal, box);
  }

  /** A tool has changed a box (null: nothing): paint and save it. */
  changed(box) {
    if (!box) return;
    this.paint(box);
    this.saver.save(this.drawing);
    this.onChange();
  }

  undo() { this.lift?.(); this.changed(this.drawing?.undo()); }

  redo() { this.lift?.(); this.changed(this.drawing?.redo()); }

  /** News of the server about this image and the proposals. */
  async follow(state) {
    const {drawing} = this;
    if (!drawing) return;
    const revision = state.images[drawing.name]?.revision;
    if (revision && revision !== drawing.revision && !this.saver.isSaving(drawing) && !drawing.isDrawing) {
      const mask = await api.mask(drawing.name);
      const isFree = !this.saver.isSaving(drawing) && !drawing.isDrawing;
      if (isFree && mask.revision !== drawing.revision && mask.bytes.length === drawing.ids.length) {
        drawing.rebase(mask.bytes, mask.revision);
        if (this.drawing === drawing) { this.repaint(); this.onChange(); }
        this.say("This image was changed in another tab and was read again.");
      }
    }
    await this.propose(state.assist);
  }

  /** Fetch the proposal for this image if there is a newer one. */
  async propose(assist) {
    const {drawing} = this;
    if (!assist?.version || (assist.version === this.proposalVersion && this.proposal)) return;
    this.proposalVersion = assist.version;
    const found = await api.proposal(drawing.name);
    if (!found || this.drawing !== drawing) return;
    const area = drawing.width * drawing.height;
    this.proposal = {ids: found.bytes.subarray(0, area), levels: found.bytes.subarray(area), version: found.version};
    if (!this.region) this.paintProposal();
    this.view.element.dataset.proposal = String(found.version);
    this.onChange();
  }

  /** Outlines of the tool at hand, kept while the picture moves. */
  outline(shape) { this.shape = {...shape, at: this.shape.at}; this.#draw(); }

  /** Where the pointer is, or null. */
  hover(point) { this.shape = {...this.shape, at: point}; this.#draw(); }

  #draw() {
    const {at} = this.shape, {isShown} = this.cursor;
    const sweeps = ["brush", "eraser", "accept"].includes(this.tool);
    const circle = at && sweeps ? {x: at.x, y: at.y, radius: this.settings.size / 2} : null;
    this.view.outline({...this.shape, circle, cross: isShown && at ? at : null});
  }
}

/** The proposal with a region on top, as certain as can be. */
function over(region, proposal, drawing) {
  const ids = proposal ? proposal.ids.slice() : new Uint8Array(drawing.ids.length).fill(255);
  const levels = proposal ? proposal.levels.slice().fill(255) : new Uint8Array(drawing.ids.length);
  region.found.forEach((is, i) => { if (is) { ids[i] = region.id; levels[i] = 0; } });
  return {ids, levels};
}
