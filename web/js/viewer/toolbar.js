// @ts-check
/** The rows above and below the pictures: choice of reference, picture and maps, and export. */

import { Memo } from "../maps/memo.js";
import { make, segmented, slider } from "./controls.js";
import * as words from "./wording.js";

/** @typedef {import("./answers.js").Answer} Answer */
/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("./state.js").State} State */

/**
 * What the buttons do.
 *
 * @typedef {object} Acts
 * @property {(values: Partial<State>) => void} set
 * @property {() => void} unpin
 * @property {() => void} play starts, or stops
 * @property {() => void} copy
 * @property {() => void} savePng
 * @property {() => void} sendMask
 */

/**
 * A button. Text is its own name; a symbol is named by its title.
 *
 * @param {string} text
 * @param {string} title
 * @param {() => void} click
 */
export function button(text, title, click) {
  const name = /^\w/.test(text) ? {} : { "aria-label": title };
  return make("button", { type: "button", class: "i2am-icon", title, click, ...name }, text);
}

/**
 * The row above the pictures.
 *
 * @param {Acts} acts
 */
export function topRow(acts) {
  const memo = new Memo();
  const tabs = make("div", { class: "i2am-tabs", role: "group", "aria-label": "Reference" });
  const step = (/** @type {number} */ by) => () => acts.set({ item: (item + by + batch) % batch });
  const items = make(
    "span",
    { class: "i2am-items" },
    button("‹", "Picture before", step(-1)),
    button("›", "Next picture", step(1)),
  );
  const notice = make("output", { class: "i2am-notice" });
  const unpin = button("Unpin", "Let go of the pinned place (Escape)", acts.unpin);
  const element = make(
    "div",
    { class: "i2am-row" },
    tabs,
    items,
    notice,
    unpin,
    button("Copy", "Copy the values of the map, to paste into a spreadsheet", acts.copy),
    button("PNG", "Save what is shown as a PNG", acts.savePng),
    button("Mask", "Send the map as a mask to ComfyUI's input folder", acts.sendMask),
  );
  let [item, batch] = [0, 1];

  /** @param {Header} header */
  const tabsOf = ({ references, share }) =>
    references.map(({ label }, r) =>
      make(
        "button",
        {
          type: "button",
          title: `${words.capital(label)}: its share of the result's attention`,
          click: () => acts.set({ reference: r }),
        },
        words.capital(label),
        make("small", {}, words.percent(share.references[r][item])),
      ),
    );

  return {
    element,
    notice,
    /**
     * @param {Header} header
     * @param {Answer} answer
     */
    update(header, { choice }) {
      [item, batch] = [choice.item, header.batch];
      items.hidden = batch < 2;
      unpin.hidden = !choice.pin;
      tabs.hidden = header.references.length < 2;
      memo.get("tabs", [header.references, header.share.references, item], () =>
        tabs.replaceChildren(...tabsOf(header)),
      );
      [...tabs.children].forEach((tab, r) => {
        tab.setAttribute("aria-pressed", String(r === choice.reference));
      });
    },
  };
}

/**
 * The row below the pictures.
 *
 * @param {Acts} acts
 */
export function bottomRow(acts) {
  const direction = segmented(
    "Direction",
    [
      {
        value: "r2g",
        text: "Where used",
        title: "Over the result: where the reference was used (R2G)",
      },
      {
        value: "g2r",
        text: "What used",
        title: "Over the reference: what of it was used (G2R)",
      },
    ],
    (value) => acts.set({ direction: value }),
  );
  const level = segmented(
    "Level",
    [
      { value: "unified", text: "All", title: "One map: the mean of everything chosen" },
      { value: "time", text: "Steps", title: "A map for each step, noisiest first" },
      { value: "layer", text: "Layers", title: "A map for each layer" },
      { value: "head", text: "Heads", title: "A map for each head" },
    ],
    (value) => acts.set({ level: value, map: 0 }),
  );
  const play = button("▶", "Play", acts.play);
  const scrub = slider("", "Which of the maps", { min: 0, max: 0, step: 1 }, (map) =>
    acts.set({ map }),
  );
  scrub.element.querySelector("input")?.setAttribute("aria-label", "Which of the maps");
  const time = make("div", { class: "i2am-scrub" }, play, scrub.element);
  const unfold = button("Settings", "Steps, layers, colours and more", () =>
    acts.set({ settings: !unfolded }),
  );
  let unfolded = false;
  const element = make(
    "div",
    { class: "i2am-row" },
    direction.element,
    level.element,
    time,
    make("span", { class: "i2am-space" }),
    unfold,
  );

  return {
    element,
    /**
     * @param {Header} header
     * @param {Answer} answer
     * @param {boolean} playing
     */
    update(header, { choice, maps, index }, playing) {
      const { has_places: places, kind } = header.references[choice.reference];
      direction.update(choice.direction, (value) =>
        value === "g2r" && !places
          ? `The ${kind} stand for the whole picture, not for places in it`
          : "",
      );
      level.update(choice.level, (value) =>
        value === "head" && Math.max(...header.heads) === 0
          ? "Heads were left out to fit, or not recorded"
          : "",
      );
      time.hidden = choice.level === "unified";
      scrub.update(index, maps?.labels[index] ?? "", (maps?.values.length ?? 1) - 1);
      play.textContent = playing ? "❚❚" : "▶";
      play.title = playing ? "Pause" : "Play";
      play.setAttribute("aria-label", play.title);
      unfolded = choice.settings;
      unfold.setAttribute("aria-expanded", String(unfolded));
    },
  };
}
