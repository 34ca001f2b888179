// @ts-check
/** The Attribution Viewer: two pictures to point at, and their controls. Independent of ComfyUI. */

import { alone, arranged, Pictures, picturesOf } from "../drawing/pictures.js";
import { imacs } from "../maps/imacs.js";
import { Memo } from "../maps/memo.js";
import { PayloadError, parsePayload } from "../maps/payload.js";
import { Answers } from "./answers.js";
import { make } from "./controls.js";
import { Panel } from "./panel.js";
import { sentence } from "./sentence.js";
import { settings } from "./settings.js";
import { readState, reduce } from "./state.js";
import { composed, copyText, download, maskOf, pngOf, valuesText } from "./take.js";
import { bottomRow, topRow } from "./toolbar.js";
import { wordRow } from "./word_row.js";
import * as words from "./wording.js";

/** @typedef {import("./answers.js").Answer} Answer */
/** @typedef {import("../maps/payload.js").Header} Header */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Fitted} Fitted */
/** @typedef {import("./state.js").Pin} Pin */
/** @typedef {import("./state.js").SideName} SideName */

/** @typedef {{filename: string, subfolder: string, type: string}} File */
/**
 * What the node sends to the page.
 *
 * @typedef {object} Output
 * @property {File} payload
 * @property {File[]} result one picture per item, or all pictures of each item's video
 * @property {File[][]} references
 */

/**
 * What the viewer needs from the page it is on.
 *
 * @typedef {object} Host
 * @property {(file: File) => string} urlOf
 * @property {(file: File, signal: AbortSignal) => Promise<Response>} fetch
 * @property {(state: State) => void} save
 * @property {(png: Blob, name: string) => Promise<string>} upload returns the name it was given
 */

const SCORE_AFTER = 80; // milliseconds without a change: scoring a large mask takes a while
const SHARPEN_AFTER = 150; // milliseconds without a change of the zoom
const PLAY_EVERY = 450; // milliseconds a map is shown while playing
const NOTICE_FOR = 6000; // milliseconds
const EMPTY = "Nothing to show yet. Press Run: the result and its references will appear here.";
const EXPIRED =
  "These maps are gone: ComfyUI empties its temporary folder when it starts. Press Run to make " +
  "them again.";
const STOPPED = {
  error:
    "The last run ended with an error before there was anything to show. Read the error of the node " +
    "marked red, put it right and press Run.",
  interrupted:
    "The last run was interrupted before there was anything to show. Press Run to start another.",
};
/** @type {SideName[]} */
const SIDES = ["result", "reference"];

export class AttributionViewer {
  /** @type {State} */
  #state;
  /** @type {Host} */
  #host;
  /** @type {Answers | null} of what is shown */
  #answers = null;
  /** @type {Output | null} */
  #output = null;
  /** @type {Pin | null} the place under the pointer */
  #hovered = null;
  /** @type {number | null} the word under the pointer */
  #hoveredWord = null;
  /** @type {AbortController | null} */
  #loading = null;
  #pictures;
  #memo = new Memo();
  #frame = 0;
  #scoring = 0;
  #playing = 0;
  #noticing = 0;
  #sharpness = 0;
  /** @type {Record<SideName, Panel>} */
  #panels;
  #top;
  #bottom;
  #settings;
  #message = make("p", { class: "i2am-message", role: "status" });
  #sentence = sentence(() => this.#changed());
  #words = wordRow(
    (word) => this.#set({ word: this.#state.word === word ? null : word }),
    (word) => {
      this.#hoveredWord = word;
      this.#changed();
    },
  );
  #pictureRow = make("div", { class: "i2am-pictures" });
  #resized = new ResizeObserver(() => this.#changed());

  /**
   * @param {Host} host
   * @param {unknown} saved a state that was passed to `host.save`
   */
  constructor(host, saved) {
    this.#host = host;
    this.#state = readState(saved);
    this.#pictures = new Pictures(
      host.urlOf,
      () => this.#changed(),
      () => this.#notice("A picture is gone from the temporary folder. Press Run to see it again."),
    );
    this.#panels = { result: this.#panel("result"), reference: this.#panel("reference") };
    this.#pictureRow.append(this.#panels.result.element, this.#panels.reference.element);
    const acts = {
      set: this.#set,
      unpin: this.#unpin,
      play: this.#play,
      copy: this.#copy,
      savePng: this.#savePng,
      sendMask: this.#sendMask,
    };
    this.#top = topRow(acts);
    this.#bottom = bottomRow(acts);
    this.#settings = settings(this.#set);
    this.element = make(
      "div",
      { class: "i2am-viewer", keydown: this.#typed, pointerenter: this.#sharpen },
      this.#message,
      this.#top.element,
      this.#pictureRow,
      this.#words.element,
      ...this.#sentence.elements,
      this.#bottom.element,
      this.#settings.element,
    );
    document.addEventListener("wheel", this.#sharpen, { capture: true, passive: true });
    this.#resized.observe(this.#pictureRow);
    this.#say(EMPTY, "empty");
  }

  /**
   * Replaces the state, as when a workflow is loaded.
   *
   * @param {unknown} saved
   */
  restore(saved) {
    this.#state = readState(saved);
    this.#changed();
  }

  /**
   * Fetches and shows what the node sent.
   *
   * @param {Output} output
   */
  async show(output) {
    if (output.payload.filename === this.#output?.payload.filename && this.#answers) {
      this.#output = output; // the pictures may be new files
      this.#pictures.clear();
      return this.#changed();
    }
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    if (!this.#answers) this.#say("Fetching the maps…", "loading");
    try {
      const answer = await this.#host.fetch(output.payload, loading.signal);
      if (answer.status === 404) return this.#fail(EXPIRED, "expired");
      if (!answer.ok) throw new PayloadError(`The server answered ${answer.status}. Run again.`);
      const payload = parsePayload(await answer.arrayBuffer());
      if (loading.signal.aborted) return;
      this.#answers = new Answers(payload);
      this.#memo = new Memo();
      this.#output = output;
      this.#hovered = this.#hoveredWord = null;
      this.#pictures.clear();
      this.#say("", "ready");
      this.#changed();
    } catch (error) {
      if (loading.signal.aborted) return;
      const told = error instanceof PayloadError ? error.message : "";
      this.#fail(told || `The maps could not be read (${error}). Run the workflow again.`, "error");
    }
  }

  /** Forgets how the previous run ended. */
  runStarted() {
    if (this.element.dataset.state === "stopped") this.#say(EMPTY, "empty");
  }

  /**
   * Says why there is nothing to show. What is shown or loading stays.
   *
   * @param {keyof typeof STOPPED} how
   */
  runStopped(how) {
    const { state = "" } = this.element.dataset;
    if (["empty", "expired", "stopped"].includes(state)) this.#say(STOPPED[how], "stopped");
  }

  /** Stops everything and releases the data. */
  destroy() {
    this.#loading?.abort();
    this.#resized.disconnect();
    document.removeEventListener("wheel", this.#sharpen, { capture: true });
    cancelAnimationFrame(this.#frame);
    for (const timer of [this.#scoring, this.#playing, this.#noticing, this.#sharpness]) {
      clearTimeout(timer);
    }
    this.#answers = this.#output = null;
    this.#pictures.clear();
    for (const side of SIDES) this.#panels[side].destroy();
  }

  // --- changes ----------------------------------------------------------------------------------

  /** @param {import("./state.js").Action} action */
  #do(action) {
    const next = reduce(this.#state, action);
    if (next === this.#state) return;
    this.#state = next;
    this.#host.save(next);
    this.#changed();
  }

  /** @param {Partial<State>} values */
  #set = (values) => this.#do({ type: "set", values });

  #changed() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.#paint();
      });
    }
  }

  /** Zooming the graph changes how many pixels to paint; wait until it ends. */
  #sharpen = () => {
    clearTimeout(this.#sharpness);
    this.#sharpness = setTimeout(() => this.#changed(), SHARPEN_AFTER);
  };

  /** @param {KeyboardEvent} event */
  #typed = (event) => {
    if (event.key === "Escape" && this.#state.pin) this.#unpin();
    else if (event.key !== "Delete" && event.key !== "Backspace") return;
    event.stopPropagation(); // otherwise the page would delete the selected node
  };

  #unpin = () => {
    this.#hovered = null;
    this.#do({ type: "clear" });
    this.#changed();
  };

  #play = () => {
    if (this.#playing) {
      clearTimeout(this.#playing);
      this.#playing = 0;
      return this.#changed();
    }
    const next = () => {
      this.#playing = setTimeout(next, PLAY_EVERY);
      const count = this.#answer()?.maps?.values.length ?? 1;
      this.#state = reduce(this.#state, { type: "move", by: 1, count });
      this.#changed();
    };
    next();
  };

  /** @param {SideName} side */
  #panel(side) {
    return new Panel(side === "result" ? "Result" : "Reference", {
      ask: (place) => {
        this.#hovered = place && { side, place };
        this.#changed();
      },
      pin: (place) => {
        if (this.#answer()?.grids) this.#do({ type: "pin", pin: { side, place } });
      },
      clear: this.#unpin,
    });
  }

  // --- painting ---------------------------------------------------------------------------------

  #answer() {
    const word = this.#hoveredWord;
    const state = word === null ? this.#state : { ...this.#state, word };
    return this.#answers?.of(state, this.#hovered) ?? null;
  }

  #paint() {
    const [answers, answer] = [this.#answers, this.#answer()];
    if (!answers || !answer || !this.element.isConnected) return;
    const { header } = answers;
    const { choice, layers, look, grids } = answer;
    this.#place(header, choice);
    for (const side of SIDES) {
      this.#panels[side].paint(layers[side], look, {
        asked: this.#hovered?.side === side ? this.#hovered.place : null,
        pinned: choice.pin?.side === side ? choice.pin.place : null,
        grid: grids?.[side] ?? null,
        mask: answers.maskOutline(side, choice),
      });
      this.#panels[side].box.classList.toggle("i2am-mute", !answer.canAsk[side]);
    }
    this.#sentence.update(header, answer);
    this.#words.update(header, answer);
    // Hovering does not change the controls.
    const [playing, count] = [this.#playing !== 0, answer.maps?.values.length];
    this.#memo.get("controls", [this.#state, playing, count], () => {
      this.#top.update(header, answer);
      this.#bottom.update(header, answer, playing);
      this.#settings.update(header, answer);
    });
    if (playing && choice.level === "unified") this.#play();
    this.#rescore(answers, choice);
  }

  /**
   * Places the pictures and the text above them.
   *
   * @param {Header} header
   * @param {Fitted} choice
   */
  #place(header, choice) {
    const reference = header.references[choice.reference];
    const share = words.percent(header.share.references[choice.reference][choice.item]);
    const files = picturesOf(header, /** @type {Output} */ (this.#output), choice);
    const { result, reference: right } = this.#panels;
    result.setPicture(
      this.#pictures.get(files.result),
      header.generated,
      "Result",
      header.batch > 1 ? `${choice.item + 1} of ${header.batch}` : "",
    );
    right.setPicture(
      this.#pictures.get(files.reference),
      reference,
      words.capital(reference.label),
      reference.has_places
        ? `${share} of the result's attention${reference.whole ? " · the model saw the middle" : ""}`
        : `${reference.kind}: no places · ${share}`,
    );
    const { clientWidth: width, clientHeight: height } = this.#pictureRow;
    right.element.hidden = reference.absent === true;
    const room = reference.absent
      ? { stacked: false, ...alone({ width, height }, result.size) }
      : arranged({ width, height }, [result.size, right.size]);
    this.#pictureRow.classList.toggle("i2am-stacked", room.stacked);
    result.resize(room.widths[0], room.height);
    if (!reference.absent) right.resize(room.widths[1], room.height);
  }

  /**
   * Scores the painted map with a mask, once it has not changed for a moment.
   *
   * @param {Answers} answers
   * @param {Fitted} choice
   */
  #rescore(answers, choice) {
    clearTimeout(this.#scoring);
    if (!SIDES.some((side) => answers.mask(side, choice))) return;
    this.#scoring = setTimeout(() => {
      for (const side of SIDES) {
        const [mask, layer] = [answers.mask(side, choice), this.#panels[side].layer];
        const complement = layer?.scale === "paper, complement";
        const score = mask && layer ? imacs(layer.values, layer.grid, mask, complement) : null;
        this.#panels[side].setScore(score);
      }
    }, SCORE_AFTER);
  }

  // --- messages ------------------------------------------------------------------------------------

  /**
   * @param {string} text
   * @param {"empty" | "loading" | "expired" | "stopped" | "error" | "ready"} kind
   */
  #say(text, kind) {
    this.#message.textContent = text;
    this.element.dataset.state = kind;
  }

  /**
   * @param {string} text
   * @param {"expired" | "error"} kind
   */
  #fail(text, kind) {
    this.#answers = this.#output = null;
    this.#say(text, kind);
  }

  /** @param {string} text shown for a while */
  #notice(text) {
    this.#top.notice.textContent = text;
    clearTimeout(this.#noticing);
    this.#noticing = setTimeout(() => {
      this.#top.notice.textContent = "";
    }, NOTICE_FOR);
  }

  // --- export -----------------------------------------------------------------------------------

  #savePng = async () => {
    const answer = this.#answer();
    if (!answer) return;
    const panels = SIDES.map((side) => this.#panels[side]);
    const picture = composed(panels, answer.look.table, this.#sentence.text);
    download(await pngOf(picture), "attribution.png");
  };

  #copy = async () => {
    const layer = this.#looked()?.layer;
    if (!layer) return;
    const text = `${this.#sentence.text} · rows from the top\n${valuesText(layer)}`;
    await copyText(text, this.element);
    this.#notice(`Copied ${layer.grid.height} × ${layer.grid.width} values.`);
  };

  #sendMask = async () => {
    const looked = this.#looked();
    if (!looked) return;
    try {
      const { part, whole } = this.#panels[looked.side];
      const png = await maskOf(looked.layer, part, whole);
      const name = await this.#host.upload(png, `i2am_mask_${looked.side}.png`);
      this.#notice(`Saved as ${name} in the input folder. Choose it in Load Image (as Mask).`);
    } catch (error) {
      this.#notice(`The mask was not saved (${error}). Is the server still there?`);
    }
  };

  /** The map in view: the point map of a place, or the chosen map. */
  #looked() {
    const answer = this.#answer();
    const layer = answer?.layers[answer.over];
    return answer && layer ? { side: answer.over, layer } : null;
  }
}
