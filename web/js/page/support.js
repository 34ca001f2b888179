// @ts-check
/** A node's support report, and the button that copies it. */

import { make } from "../viewer/controls.js";

const LABEL = "Copy support report";
const SAID_FOR = 2500; // milliseconds
const HEIGHT = 34;
const HEIGHT_WITH_TEXT = 150;
const TITLE =
  "Versions, device, model, what was seen and what went wrong, to paste into a question or a bug " +
  "report. It holds no paths and no prompts.";

export class SupportReport {
  #text = "";
  #timer = 0;
  #resized;
  #button = make("button", { type: "button", title: TITLE, click: () => this.#copy() }, LABEL);
  #shown = make("textarea", {
    readonly: true,
    hidden: true,
    rows: 5,
    "aria-label": "Support report",
  });

  /** @param {() => void} resized called when it needs more room or less */
  constructor(resized) {
    this.#resized = resized;
    this.element = make("div", { class: "i2am-support" }, this.#button, this.#shown);
  }

  get height() {
    return this.#shown.hidden ? HEIGHT : HEIGHT_WITH_TEXT;
  }

  /** @param {string} text */
  tell(text) {
    this.#text = this.#shown.value = text;
  }

  destroy() {
    clearTimeout(this.#timer);
  }

  async #copy() {
    const copied = await copy(this.#text);
    // Where copying is blocked, the text is shown, to be copied by hand.
    this.#shown.hidden = copied;
    this.#resized();
    if (!copied) this.#shown.select();
    this.#button.textContent = copied ? "Copied" : "Copy the text below";
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#button.textContent = LABEL), SAID_FOR);
  }
}

/**
 * Copies a text and says whether that worked. Pages that are not served securely (say, from another
 * computer on the network) have no clipboard API, so they copy a selection.
 *
 * @param {string} text
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "i2am-copied", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
