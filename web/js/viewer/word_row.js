// @ts-check
/** The words of the prompt under the pictures, and who is attended to most at a place. */

import { Memo } from "../maps/memo.js";
import { make } from "./controls.js";
import * as words from "./wording.js";

/** @typedef {import("./answers.js").Answer} Answer */
/** @typedef {import("../maps/payload.js").Header} Header */

const RANKED = 5; // shown at a place

/**
 * @param {(word: number) => void} choose a word, or let go of it if it is chosen
 * @param {(word: number | null) => void} point at a word, or at none
 */
export function wordRow(choose, point) {
  const memo = new Memo();
  const list = make("div", { class: "i2am-words", role: "group", "aria-label": "Words" });
  const ranking = make("p", { class: "i2am-ranking", "aria-live": "polite" });
  const element = make("div", { class: "i2am-wording" }, list, ranking);

  /**
   * @param {Header} header
   * @param {number} item
   */
  const buttonsOf = (header, item) =>
    header.words.map(({ text, weight, share }, word) =>
      make(
        "button",
        {
          type: "button",
          title:
            `Where “${text}” was attended to: ${words.percent(share[item])} of the result's ` +
            `attention${weight === 1 ? "" : `, weight ${weight}`}`,
          click: () => choose(word),
          pointerenter: () => point(word),
          pointerleave: () => point(null),
        },
        text,
        make("small", {}, words.percent(share[item])),
      ),
    );

  return {
    element,
    /**
     * @param {Header} header
     * @param {Answer} answer
     */
    update(header, { choice, ranked }) {
      element.hidden = header.words.length === 0;
      if (element.hidden) return;
      memo.get("words", [header.words, choice.item], () =>
        list.replaceChildren(...buttonsOf(header, choice.item)),
      );
      [...list.children].forEach((word, index) => {
        word.setAttribute("aria-pressed", String(index === choice.word));
      });
      const first = ranked.slice(0, RANKED);
      const said = first.map(({ name, share }) => `${name} ${words.percent(share)}`).join(" · ");
      const line = said ? `Here: ${said}` : "Point at a word, or at a place of the result.";
      if (ranking.textContent !== line) ranking.textContent = line;
    },
  };
}
