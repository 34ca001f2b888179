// @ts-check
/** The line that says what is shown, and the notes that explain it. */

import { extent } from "../maps/maps.js";
import { Memo } from "../maps/memo.js";
import { make } from "./controls.js";
import { button } from "./toolbar.js";
import * as words from "./wording.js";

/** @typedef {import("./answers.js").Answer} Answer */
/** @typedef {import("../maps/payload.js").Header} Header */

/** @param {() => void} resized called when the notes were folded or unfolded */
export function sentence(resized) {
  const line = make("p", { class: "i2am-sentence", "aria-live": "polite" });
  const notes = make("div", { class: "i2am-notes" });
  const explain = button("?", "What is this?", () => {
    unfold(notes.hidden !== false);
    resized();
  });
  const memo = new Memo();

  /** @param {boolean} open */
  function unfold(open) {
    notes.hidden = !open;
    explain.setAttribute("aria-expanded", String(open));
  }
  unfold(false);

  return {
    elements: [make("div", { class: "i2am-says" }, line, explain), notes],
    get text() {
      return line.textContent ?? "";
    },
    /**
     * @param {Header} header
     * @param {Answer} answer
     */
    update(header, { choice, maps, index, asked, over, layers }) {
      const shown = layers[over];
      const what = asked
        ? words.pointSentence(header, choice, asked)
        : words.mapSentence(header, choice, maps?.labels[index] ?? "");
      const range = shown ? words.rangeWords(extent([shown.values]), shown.unit) : "not recorded";
      const pooled = header.pooled.length ? " · made coarser to fit" : "";
      const said = `${what} · ${range}${pooled}`;
      if (line.textContent !== said) line.textContent = said;
      const direction = over === "result" ? "r2g" : "g2r";
      const unit = shown?.unit ?? "×";
      const explained = words.explanation(header, choice, direction, asked !== null, unit);
      if (header.pooled.length) explained.push(`Made coarser to fit: ${header.pooled.join(", ")}.`);
      memo.get("notes", explained, () =>
        notes.replaceChildren(...explained.map((note) => make("p", {}, note))),
      );
    },
  };
}
