// Lists, sliders and texts around the picture.

import * as api from "./api.js";

export const find = (id) => document.getElementById(id);

/** Colours to show: black, the usual background, would hide the picture. */
export function shownColours(palette) {
  return palette.map((c) => (Math.max(...c) < 48 ? [112, 126, 150] : c));
}

export function listClasses(project, colours, choose) {
  find("classes").replaceChildren(...project.classes.map((name, id) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.id = String(id);
    const swatch = document.createElement("span"), text = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${colours[id].join(" ")})`;
    text.className = "name";
    text.textContent = name;
    button.append(swatch, text);
    if (id < 9) {
      const key = document.createElement("kbd");
      key.textContent = String(id + 1);
      button.append(key);
    }
    button.addEventListener("click", () => choose(id));
    return button;
  }));
}

export function press(container, key, value) {
  for (const button of container.querySelectorAll(`button[data-${key}]`)) {
    button.setAttribute("aria-pressed", String(button.dataset[key] === String(value)));
  }
}

export function listImages(project, open) {
  find("images").replaceChildren(...project.images.map((name) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.dataset.name = name;
    button.title = name;
    const picture = document.createElement("img"), mark = document.createElement("span");
    picture.loading = "lazy";
    picture.alt = "";
    picture.src = api.thumbnail(name);
    mark.className = "mark";
    mark.setAttribute("aria-hidden", "true");
    button.append(picture, mark);
    button.addEventListener("click", () => open(name));
    item.append(button);
    return item;
  }));
}

const MARKS = {new: "", started: "", finished: "✓", unreadable: "!"};
const WORDS = {new: "not drawn", started: "started", finished: "finished", unreadable: "cannot be read"};

export function showProgress(state, current) {
  const all = Object.entries(state.images);
  const finished = all.filter(([, image]) => image.progress === "finished").length;
  find("progress").textContent = `${finished} of ${all.length} drawn`;
  find("bar").style.width = `${(100 * finished) / all.length}%`;
  for (const button of find("images").querySelectorAll("button")) {
    const {progress, error} = state.images[button.dataset.name];
    button.dataset.progress = progress;
    button.querySelector(".mark").textContent = MARKS[progress];
    button.setAttribute("aria-label", `${button.dataset.name}, ${WORDS[progress]}`);
    button.title = error ?? button.dataset.name;
    button.setAttribute("aria-current", String(button.dataset.name === current));
  }
  const isFinished = state.images[current]?.progress === "finished";
  find("finished").setAttribute("aria-pressed", String(isFinished));
}

export function showAssist(assist, hint, proposal) {
  find("assist").textContent = assist ? assistText(assist, proposal) : hint;
}

function assistText({doing, failure, encoded, pictures, version, fixed}, proposal) {
  if (failure) return `Proposals are off: ${failure}`;
  if (doing === "loading") return "Loading the model…";
  if (doing === "learning") return "Learning from your strokes…";
  if (encoded < pictures && !version) return `Reading pictures: ${encoded} of ${pictures}. Draw meanwhile.`;
  if (!version) return "Draw a little of two classes, and the rest is proposed.";
  if (!proposal) return `Reading pictures: ${encoded} of ${pictures}.`;
  return fixed ? "Shown where nothing is drawn; dotted where uncertain." : "Trained on what is drawn. Dotted: uncertain.";
}

const SAVED = {saved: "Saved", saving: "Saving…", offline: "Not connected: strokes are kept, trying again"};

export function showSaved(state, error) {
  const text = error?.status === 401 ? "Open the address that the server printed" : SAVED[state];
  if (find("saved").textContent !== text) find("saved").textContent = text;
  find("saved").dataset.state = state;
}

let timer = 0;

export function say(text) {
  find("message").textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => find("message").replaceChildren(), 3000 + 45 * text.length);
}

/** A slider with its number; `use(value)` now and whenever it moves. */
export function slider(id, format, use) {
  const input = find(id), output = find(`${id}-value`);
  const show = () => {
    output.textContent = format(Number(input.value));
    use(Number(input.value));
  };
  input.addEventListener("input", show);
  show();
  return {
    step(by) {
      input.value = String(Number(input.value) + by);
      show();
    },
  };
}
