// Mouse, pen, fingers and keys on the picture.

const WHEEL = 0.0015;
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/** Connects the view of an editor; `tool()` is the one at hand. */
export function connectPointers(editor, tool) {
  const {view} = editor, element = view.element, fingers = new Map();
  let panning = null, pinch = null, drawing = null;

  const where = (event) => { const r = element.getBoundingClientRect(); return {x: event.clientX - r.left, y: event.clientY - r.top}; };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.hypot(a.x - b.x, a.y - b.y) || 1};
  };

  element.addEventListener("pointerdown", (event) => {
    if (!editor.drawing) return;
    element.focus({preventScroll: true});
    element.setPointerCapture(event.pointerId);
    editor.cursor.isShown = false;
    if (event.pointerType === "touch") fingers.set(event.pointerId, where(event));
    if (fingers.size === 2) { // two fingers move the picture, whatever the first had begun
      tool().cancel?.();
      drawing = null;
      pinch = spread();
    } else if (event.button === 1 || event.button === 2 || editor.tool === "pan") panning = where(event);
    else if (event.button === 0 && drawing === null) {
      drawing = event.pointerId;
      tool().down(view.toPicture(event), {double: event.detail > 1});
    }
  });
  element.addEventListener("pointermove", (event) => {
    const at = where(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
    if (pinch && fingers.size === 2) {
      const now = spread();
      view.move(now.x - pinch.x, now.y - pinch.y);
      view.zoom(now.distance / pinch.distance, now);
      pinch = now;
    } else if (panning) {
      view.move(at.x - panning.x, at.y - panning.y);
      panning = at;
    } else if (editor.drawing && (drawing === null || drawing === event.pointerId)) {
      const steps = drawing === null ? [] : event.getCoalescedEvents?.() ?? [];
      for (const step of steps.length ? steps : [event]) tool().move(view.toPicture(step));
      editor.cursor.isShown = false;
      editor.hover(view.toPicture(event));
    }
  });
  const end = (event) => {
    fingers.delete(event.pointerId);
    if (fingers.size < 2) pinch = null;
    panning = null;
    if (drawing !== event.pointerId) return;
    drawing = null;
    if (event.type === "pointercancel") tool().cancel?.();
    else tool().up(view.toPicture(event));
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("pointerleave", () => editor.hover(null));
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) view.move(-event.deltaY, 0);
    else view.zoom(Math.exp(-event.deltaY * WHEEL), where(event));
  }, {passive: false});
}

/** Keys that draw: only while the picture has the focus. */
export function connectCursor(editor, tool) {
  const {view} = editor, cursor = editor.cursor;
  let isDown = false;
  const centre = () => ({x: Math.floor(cursor.x) + 0.5, y: Math.floor(cursor.y) + 0.5});
  const lift = () => { if (isDown) { isDown = false; tool().up(centre()); } };

  view.element.addEventListener("keydown", (event) => {
    if (!editor.drawing || event.ctrlKey || event.metaKey) return;
    const {width, height} = view.size;
    if (ARROWS[event.key]) {
      const [dx, dy] = ARROWS[event.key], by = event.shiftKey ? 10 : 1;
      if (!cursor.isShown) cursor.isShown = true;
      cursor.x = Math.min(width - 1, Math.max(0, cursor.x + dx * by));
      cursor.y = Math.min(height - 1, Math.max(0, cursor.y + dy * by));
      view.reveal(centre());
      tool().move(centre());
      editor.hover(centre());
    } else if (event.key === " ") {
      cursor.isShown = true;
      if (isDown) lift();
      else {
        isDown = Boolean(tool().sweeps);
        tool().down(centre());
        if (!isDown) tool().up(centre());
      }
      editor.hover(centre());
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  view.element.addEventListener("blur", lift);
  view.element.addEventListener("focus", () => editor.hover(centre()));
  editor.lift = lift;
}
