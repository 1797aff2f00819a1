// The picture, what is drawn and what is proposed, as three canvases of the picture's own size that
// are moved and enlarged together; and, above them, outlines at the screen's resolution.

import {UNDRAWN, grown, whole} from "./raster.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN_PX = 24, MOST_SCALE = 64;
const DOTTED = 90; // level of uncertainty from which a proposal is dotted, of 255

export class View {
  constructor(element, colours) {
    this.element = element;
    this.colours = colours; // [r, g, b] per class
    this.sheet = element.querySelector("#sheet");
    this.overlay = element.querySelector("#pointer");
    [this.picture, this.proposed, this.drawn] = ["picture", "proposed", "drawn"].map((id) => element.querySelector(`#${id}`));
    this.scale = 1;
    this.left = this.top = 0;
    this.fitted = true;
    this.colour = null; // the picture's RGBA bytes
    new ResizeObserver(() => (this.fitted ? this.fit() : this.place())).observe(element);
  }

  /** Show another picture. */
  show(bitmap) {
    for (const canvas of [this.picture, this.proposed, this.drawn]) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    const context = this.picture.getContext("2d", {willReadFrequently: true});
    context.drawImage(bitmap, 0, 0);
    this.colour = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
    this.fit();
  }

  get size() { return {width: this.picture.width, height: this.picture.height}; }

  /** Paint a box of the drawing: full colour where classes meet. */
  paintDrawn(drawing, box = whole(drawing)) {
    const {ids, width, height} = drawing, around = grown(box, 1, drawing);
    this.#paint(this.drawn, around, (x, y, i) => {
      const id = ids[i];
      if (id === UNDRAWN) return 0;
      const edge = (x > 0 && ids[i - 1] !== id) || (x + 1 < width && ids[i + 1] !== id)
        || (y > 0 && ids[i - width] !== id) || (y + 1 < height && ids[i + width] !== id);
      return [id, edge ? 255 : 165];
    });
  }

  /** Paint a box of the proposal where nothing is drawn: fainter and dotted where uncertain. */
  paintProposed(drawing, proposal, box = whole(drawing)) {
    const {ids, width} = drawing;
    this.#paint(this.proposed, box, (x, y, i) => {
      if (!proposal || ids[i] !== UNDRAWN) return 0;
      const id = proposal.ids[i], level = proposal.levels[i];
      if (id === UNDRAWN) return 0;
      const edge = (x > 0 && proposal.ids[i - 1] !== id) || (y > 0 && proposal.ids[i - width] !== id);
      if (edge) return [id, 230];
      if (level > DOTTED && (x + y) % 2) return 0;
      return [id, 30 + Math.round(110 * (1 - Math.min(1, level / 160)))];
    });
  }

  #paint(canvas, box, pixel) {
    const image = new ImageData(box.width, box.height), data = image.data, width = this.picture.width;
    for (let row = 0, at = 0; row < box.height; row++) {
      for (let column = 0; column < box.width; column++, at += 4) {
        const x = box.x + column, y = box.y + row, found = pixel(x, y, y * width + x);
        if (!found) continue;
        const colour = this.colours[found[0]];
        data[at] = colour[0]; data[at + 1] = colour[1]; data[at + 2] = colour[2]; data[at + 3] = found[1];
      }
    }
    canvas.getContext("2d").putImageData(image, box.x, box.y);
  }

  opacity(share) {
    this.drawn.style.opacity = this.proposed.style.opacity = share;
  }

  // --- where it is on the screen -----------------------------------------------------------------

  fit() {
    const {width, height} = this.size, room = this.element.getBoundingClientRect();
    const scale = Math.min((room.width - 2 * MARGIN_PX) / width, (room.height - 2 * MARGIN_PX) / height);
    this.scale = Math.min(MOST_SCALE, Math.max(0.02, scale));
    this.left = (room.width - width * this.scale) / 2;
    this.top = (room.height - height * this.scale) / 2;
    this.fitted = true;
    this.place();
  }

  /** Zoom by a factor around a point of the view, by default its middle. */
  zoom(factor, at = this.middle) {
    const scale = Math.min(MOST_SCALE, Math.max(0.02, this.scale * factor)), by = scale / this.scale;
    this.left = at.x - (at.x - this.left) * by;
    this.top = at.y - (at.y - this.top) * by;
    this.scale = scale;
    this.fitted = false;
    this.place();
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.place();
  }

  get middle() {
    const room = this.element.getBoundingClientRect();
    return {x: room.width / 2, y: room.height / 2};
  }

  place() {
    this.sheet.style.transform = `translate(${this.left}px, ${this.top}px) scale(${this.scale})`;
    this.sheet.classList.toggle("near", this.scale >= 2);
    this.onPlace?.();
  }

  /** The point of the picture below a pointer event. */
  toPicture(event) {
    const room = this.element.getBoundingClientRect();
    return {x: (event.clientX - room.left - this.left) / this.scale, y: (event.clientY - room.top - this.top) / this.scale};
  }

  toView(point) { return {x: this.left + point.x * this.scale, y: this.top + point.y * this.scale}; }

  /** Move so that a point of the picture can be seen. */
  reveal(point) {
    const at = this.toView(point), room = this.element.getBoundingClientRect();
    const inside = (v, most) => Math.min(Math.max(v, MARGIN_PX), most - MARGIN_PX);
    const dx = inside(at.x, room.width) - at.x, dy = inside(at.y, room.height) - at.y;
    if (dx || dy) this.move(dx, dy);
  }

  // --- outlines ----------------------------------------------------------------------------------

  /** Outlines in coordinates of the picture: {circle: {x, y, radius}, corners, cross, dashed}. */
  outline({circle, corners, cross, open}) {
    const parts = [];
    const both = (name, attributes) => {
      for (const kind of ["under", "over"]) parts.push(element(name, {...attributes, class: kind}));
    };
    if (circle) {
      const at = this.toView(circle);
      both("circle", {cx: at.x, cy: at.y, r: Math.max(2, circle.radius * this.scale)});
    }
    if (cross) {
      const at = this.toView(cross);
      both("path", {d: `M${at.x - 11} ${at.y}h7M${at.x + 4} ${at.y}h7M${at.x} ${at.y - 11}v7M${at.x} ${at.y + 4}v7`});
    }
    if (corners?.length) {
      const points = [...corners, ...(open ? [open] : [])].map((p) => this.toView(p));
      both("polyline", {points: points.map((p) => `${p.x},${p.y}`).join(" ")});
      corners.forEach((p) => {
        const at = this.toView(p);
        parts.push(element("circle", {cx: at.x, cy: at.y, r: 3.5, class: "corner"}));
      });
    }
    this.overlay.replaceChildren(...parts);
  }
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
