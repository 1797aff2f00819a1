// Pixels of shapes. Pixel (x, y) covers [x, x+1) by [y, y+1); shapes take those whose centre they
// hold. A grid is {width, height}; a box is {x, y, width, height}.

export const UNDRAWN = 255;

/** The smallest box around two; null counts as nothing. */
export function union(a, b) {
  if (!a || !b) return a || b;
  const x = Math.min(a.x, b.x), y = Math.min(a.y, b.y);
  const right = Math.max(a.x + a.width, b.x + b.width);
  const bottom = Math.max(a.y + a.height, b.y + b.height);
  return {x, y, width: right - x, height: bottom - y};
}

export const whole = (grid) => ({x: 0, y: 0, width: grid.width, height: grid.height});

/** A box a little larger, within the grid. */
export function grown(box, by, grid) {
  const x = Math.max(0, box.x - by), y = Math.max(0, box.y - by);
  const right = Math.min(grid.width, box.x + box.width + by);
  const bottom = Math.min(grid.height, box.y + box.height + by);
  return {x, y, width: right - x, height: bottom - y};
}

/** Visit index by index the pixels between two points that a disc of `diameter` sweeps. */
export function sweep(grid, from, to, diameter, visit) {
  const radius = Math.max(diameter / 2, 0.5), square = radius * radius + 1e-6;
  // A single pixel would fall between centres: it is the one under the pointer.
  const at = (p) => (diameter > 1 ? p : {x: Math.floor(p.x) + 0.5, y: Math.floor(p.y) + 0.5});
  const a = at(from), b = at(to), dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  const left = Math.max(0, Math.floor(Math.min(a.x, b.x) - radius));
  const top = Math.max(0, Math.floor(Math.min(a.y, b.y) - radius));
  const right = Math.min(grid.width - 1, Math.ceil(Math.max(a.x, b.x) + radius));
  const bottom = Math.min(grid.height - 1, Math.ceil(Math.max(a.y, b.y) + radius));
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const ex = px - t * dx, ey = py - t * dy;
      if (ex * ex + ey * ey <= square) visit(y * grid.width + x);
    }
  }
  if (right < left || bottom < top) return null;
  return {x: left, y: top, width: right - left + 1, height: bottom - top + 1};
}

/** Visit the pixels inside a polygon, by the even-odd rule. */
export function polygon(grid, points, visit) {
  const ys = points.map((p) => p.y), xs = points.map((p) => p.x);
  const top = Math.max(0, Math.floor(Math.min(...ys)));
  const bottom = Math.min(grid.height - 1, Math.ceil(Math.max(...ys)));
  for (let y = top; y <= bottom; y++) {
    const at = y + 0.5, cuts = [];
    points.forEach((p, i) => {
      const q = points[(i + 1) % points.length];
      if (p.y <= at !== q.y <= at) cuts.push(p.x + ((at - p.y) / (q.y - p.y)) * (q.x - p.x));
    });
    cuts.sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const end = Math.min(grid.width - 1, Math.ceil(cuts[i + 1] - 0.5) - 1);
      for (let x = Math.max(0, Math.ceil(cuts[i] - 0.5)); x <= end; x++) visit(y * grid.width + x);
    }
  }
  const left = Math.max(0, Math.floor(Math.min(...xs)));
  const right = Math.min(grid.width - 1, Math.ceil(Math.max(...xs)));
  if (right < left || bottom < top) return null;
  return {x: left, y: top, width: right - left + 1, height: bottom - top + 1};
}

/** The pixels connected to `start` (an index) for which `belongs` holds, and their box. */
export function connected(grid, start, belongs) {
  const {width, height} = grid, found = new Uint8Array(width * height), stack = [start];
  let left = width, right = 0, top = height, bottom = 0;
  const add = (i) => { if (!found[i] && belongs(i)) { found[i] = 1; stack.push(i); } };
  found[start] = 1;
  while (stack.length) {
    const i = stack.pop(), x = i % width, y = (i - x) / width;
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
    if (x > 0) add(i - 1);
    if (x + 1 < width) add(i + 1);
    if (y > 0) add(i - width);
    if (y + 1 < height) add(i + width);
  }
  return {found, box: {x: left, y: top, width: right - left + 1, height: bottom - top + 1}};
}

/** The bytes of a box, row by row. */
export function cut(pixels, grid, box) {
  const out = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row++) {
    const start = (box.y + row) * grid.width + box.x;
    out.set(pixels.subarray(start, start + box.width), row * box.width);
  }
  return out;
}

/** Write what `cut` returned. */
export function paste(pixels, grid, box, bytes) {
  for (let row = 0; row < box.height; row++) {
    const part = bytes.subarray(row * box.width, (row + 1) * box.width);
    pixels.set(part, (box.y + row) * grid.width + box.x);
  }
}
