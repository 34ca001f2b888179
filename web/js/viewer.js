// @ts-check
/** The Attribution Viewer: two pictures to point at, and what to look at. Knows no ComfyUI. */

import { make, rangeSlider, segmented, select, slider } from "./controls.js";
import { cellAt } from "./grid.js";
import { extent, matchGrids, pointMap, rangeOf, selectMaps, stretch } from "./maps.js";
import { imacs } from "./metric.js";
import { normalised, outline } from "./paint.js";
import { Panel } from "./panel.js";
import { colorTable, PayloadError, parsePayload } from "./payload.js";
import { maskPng } from "./png.js";
import { fit, readState, reduce } from "./state.js";
import * as words from "./words.js";

/** @typedef {import("./payload.js").Payload} Payload */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Pin} Pin */
/** @typedef {import("./state.js").SideName} SideName */
/** @typedef {import("./state.js").State & import("./maps.js").Choice} Fitted */
/** @typedef {import("./maps.js").Maps} Maps */
/** @typedef {import("./grid.js").Place} Place */
/** @typedef {import("./panel.js").Layer} Layer */

/** @typedef {{filename: string, subfolder: string, type: string}} File */
/**
 * What the node tells the page.
 *
 * @typedef {object} Output
 * @property {File} payload
 * @property {File[]} result a picture for each item, or all of each item's video
 * @property {File[][]} references
 */

/**
 * What the viewer needs of the page it is on.
 *
 * @typedef {object} Host
 * @property {(file: File) => string} urlOf
 * @property {(file: File, signal: AbortSignal) => Promise<Response>} fetch
 * @property {(state: State) => void} save
 * @property {(png: Blob, name: string) => Promise<string>} upload gives the name it got
 */

const SCORE_AFTER = 80; // milliseconds without a change: a score of a large mask takes a while
const PLAY_EVERY = 450; // milliseconds a map is shown while playing
const NOTICE_FOR = 6000; // milliseconds
const EXPORT_SIDE = [512, 1536]; // pixels: the height of an exported picture, at least and at most
const EMPTY = "Nothing to show yet. Press Run: the result and its references will appear here.";
const EXPIRED =
  "These maps are gone: ComfyUI empties its temporary folder when it starts. Press Run to make " +
  "them again.";
/** @type {SideName[]} */
const SIDES = ["result", "reference"];

export class AttributionViewer {
  /** @type {State} */
  #state;
  /** @type {Host} */
  #host;
  /** @type {Payload | null} */
  #payload = null;
  /** @type {Output | null} */
  #output = null;
  /** @type {Pin | null} */
  #asked = null;
  /** @type {AbortController | null} */
  #loading = null;
  /** @type {Map<string, HTMLImageElement | null>} */
  #pictures = new Map();
  /** @type {Map<string, unknown>} one value for each name, with what it was made of */
  #kept = new Map();
  #frame = 0;
  #scoring = 0;
  #playing = 0;
  #noticing = 0;
  #sharpness = 0;
  /** @type {Record<SideName, Panel>} */
  #panels;
  #tabs = make("div", { class: "i2am-tabs", role: "group", "aria-label": "Reference" });
  #message = make("p", { class: "i2am-message", role: "status" });
  #sentence = make("p", { class: "i2am-sentence", "aria-live": "polite" });
  #notes = make("div", { class: "i2am-notes" });
  #pictureRow = make("div", { class: "i2am-pictures" });
  #resized = new ResizeObserver(() => this.#changed());

  /**
   * @param {Host} host
   * @param {unknown} saved a state, as it was given to `host.save`
   */
  constructor(host, saved) {
    this.#host = host;
    this.#state = readState(saved);
    this.#panels = { result: this.#panel("result"), reference: this.#panel("reference") };
    this.#pictureRow.append(this.#panels.result.element, this.#panels.reference.element);
    this.#controls = this.#makeControls();
    this.element = make(
      "div",
      { class: "i2am-viewer", keydown: this.#typed, pointerenter: this.#sharpen },
      this.#message,
      this.#controls.top,
      this.#pictureRow,
      make("div", { class: "i2am-says" }, this.#sentence, this.#controls.explain),
      this.#notes,
      this.#controls.bottom,
      this.#controls.settings,
    );
    document.addEventListener("wheel", this.#sharpen, { capture: true, passive: true });
    this.#resized.observe(this.#pictureRow);
    this.#notes.hidden = true;
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
   * Fetches and shows what the node told.
   *
   * @param {Output} output
   */
  async show(output) {
    if (output.payload.filename === this.#output?.payload.filename && this.#payload) {
      this.#output = output; // the pictures may be new files
      this.#pictures.clear();
      return this.#changed();
    }
    this.#loading?.abort();
    const loading = new AbortController();
    this.#loading = loading;
    if (!this.#payload) this.#say("Fetching the maps…", "loading");
    try {
      const answer = await this.#host.fetch(output.payload, loading.signal);
      if (answer.status === 404) return this.#fail(EXPIRED, "expired");
      if (!answer.ok) throw new PayloadError(`The server answered ${answer.status}. Run again.`);
      const payload = parsePayload(await answer.arrayBuffer());
      if (loading.signal.aborted) return;
      this.#payload = payload;
      this.#output = output;
      this.#asked = null;
      this.#pictures.clear();
      this.#kept.clear();
      this.#say("", "ready");
      this.#changed();
    } catch (error) {
      if (loading.signal.aborted) return;
      const told = error instanceof PayloadError ? error.message : "";
      this.#fail(told || `The maps could not be read (${error}). Run the workflow again.`, "error");
    }
  }

  /** Stops everything and lets go of the data. */
  destroy() {
    this.#loading?.abort();
    this.#resized.disconnect();
    document.removeEventListener("wheel", this.#sharpen, { capture: true });
    cancelAnimationFrame(this.#frame);
    for (const timer of [this.#scoring, this.#playing, this.#noticing, this.#sharpness]) {
      clearTimeout(timer);
    }
    this.#payload = this.#output = null;
    this.#pictures.clear();
    this.#kept.clear();
    for (const side of SIDES) this.#panels[side].destroy();
  }

  /** What is shown as a PNG: both pictures, their colour bars and the sentence. */
  async exportPng() {
    const canvas = this.#composed();
    return /** @type {Promise<Blob>} */ (
      new Promise((done, failed) =>
        canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("no PNG"))), "image/png"),
      )
    );
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

  /** Zooming the graph changes how many pixels there are to paint; wait until it is over. */
  #sharpen = () => {
    clearTimeout(this.#sharpness);
    this.#sharpness = setTimeout(() => this.#changed(), 150);
  };

  /** @param {KeyboardEvent} event */
  #typed = (event) => {
    if (event.key !== "Escape" || !this.#state.pin) return;
    this.#clear();
    event.stopPropagation();
  };

  #clear = () => {
    this.#asked = null;
    this.#do({ type: "clear" });
    this.#changed();
  };

  /** @param {SideName} side */
  #panel(side) {
    return new Panel(side === "result" ? "Result" : "Reference", {
      ask: (place) => {
        this.#asked = place && { side, place };
        this.#changed();
      },
      pin: (place) => {
        if (this.#fitted()?.canAsk) this.#do({ type: "pin", pin: { side, place } });
      },
      clear: this.#clear,
    });
  }

  // --- what to paint ----------------------------------------------------------------------------

  /** The state as this payload can show it, and whether places can be asked about. */
  #fitted() {
    if (!this.#payload) return null;
    const { header } = this.#payload;
    const choice = fit(this.#state, header);
    return { header, choice, canAsk: header.correspondence[choice.reference] !== null };
  }

  /**
   * A value that is made anew only when what it is made of changes.
   *
   * @template T
   * @param {string} name
   * @param {unknown[]} facts
   * @param {() => T} build
   * @returns {T}
   */
  #keep(name, facts, build) {
    const key = JSON.stringify(facts);
    const kept = /** @type {{key: string, value: T} | undefined} */ (this.#kept.get(name));
    if (kept?.key === key) return kept.value;
    const value = build();
    this.#kept.set(name, { key, value });
    return value;
  }

  /** @param {Fitted} choice */
  #maps(choice) {
    const { item, reference, definition, direction, level, steps, layers, head, frame } = choice;
    const facts = [item, reference, definition, direction, level, steps, layers, head, frame];
    const payload = /** @type {Payload} */ (this.#payload);
    return this.#keep("maps", facts, () => selectMaps(payload, choice));
  }

  /**
   * @param {Fitted} choice
   * @param {Pin | null} asked
   */
  #point(choice, asked) {
    if (!asked) return null;
    const payload = /** @type {Payload} */ (this.#payload);
    const grids = matchGrids(payload.header, choice.reference);
    if (!grids) return null;
    const { place, side } = asked;
    // All points of a cell ask the same.
    const cell = place.kind === "point" ? cellAt(grids[side], place.x, place.y) : place;
    const facts = [choice.item, choice.reference, choice.definition, side, cell];
    return this.#keep("point", facts, () => pointMap(payload, choice, side, place));
  }

  #paint() {
    const fitted = this.#fitted();
    if (!fitted || !this.element.isConnected) return;
    const { header, choice, canAsk } = fitted;
    const maps = this.#maps(choice);
    const index = Math.min(choice.map, (maps?.values.length ?? 1) - 1);
    const asked = canAsk ? (this.#asked ?? choice.pin) : null;
    const point = this.#point(choice, asked);
    const look = this.#keep("look", [choice.colormap, choice.opacity, choice.threshold], () => ({
      table: colorTable(header, choice.colormap),
      opacity: choice.opacity,
      threshold: choice.threshold,
    }));
    const over = choice.direction === "r2g" ? "result" : "reference";
    const other = asked && (asked.side === "result" ? "reference" : "result");
    const grids = matchGrids(header, choice.reference);
    const own = maps && layerOf(maps, index, choice.scale);
    const pointed = point && layerOf(point, 0, choice.scale);

    this.#place(header, choice);
    for (const side of SIDES) {
      const layer = other === side ? pointed : over === side ? own : null;
      this.#panels[side].paint(layer, look, {
        asked: this.#asked?.side === side ? this.#asked.place : null,
        pinned: choice.pin?.side === side ? choice.pin.place : null,
        grid: grids?.[side] ?? null,
        mask: this.#maskOutline(side, choice),
      });
      const can =
        side === "result" ? canAsk : canAsk && header.references[choice.reference].has_places;
      this.#panels[side].box.classList.toggle("i2am-mute", !can);
    }
    const shown = pointed ?? own;
    this.#speak(header, choice, asked && point ? asked : null, maps?.labels[index] ?? "", shown);
    // Hovering changes no control.
    const facts = [this.#state, this.#playing !== 0, maps?.labels.length];
    this.#keep("controls", facts, () => this.#controls.update(header, choice, maps, index));
    this.#rescore(choice);
  }

  /**
   * The pictures, in the arrangement that shows them largest.
   *
   * @param {import("./payload.js").Header} header
   * @param {Fitted} choice
   */
  #place(header, choice) {
    const reference = header.references[choice.reference];
    const { result, reference: right } = this.#panels;
    const share = header.share.references[choice.reference][choice.item];
    const output = /** @type {Output} */ (this.#output);
    const frame = choice.frame;
    result.setPicture(
      this.#picture(pictureOf(output.result, header.batch, choice.item, header.generated, frame)),
      header.generated.size,
      "Result",
      header.batch > 1 ? `${choice.item + 1} of ${header.batch}` : "",
    );
    const files = output.references[choice.reference] ?? [];
    const videos = header.within ? header.batch : 1;
    const item = files.length > 1 ? choice.item : 0;
    right.setPicture(
      this.#picture(
        reference.frames > 1
          ? pictureOf(files, videos, header.within ? item : 0, reference, frame)
          : files[Math.min(item, files.length - 1)],
      ),
      reference.size,
      header.within ? "The result itself" : words.capital(reference.label),
      reference.has_places
        ? `${words.percent(share)} of the result's attention`
        : `${reference.kind}: no places · ${words.percent(share)}`,
    );
    const { clientWidth, clientHeight } = this.#pictureRow;
    const gap = 12;
    const around = 52; // the caption and the colour bar
    const [a, b] = [result.size, right.size].map(([height, width]) => width / height);
    const beside = Math.min((clientWidth - gap) / (a + b), clientHeight - around);
    const stacked = Math.min((clientHeight - gap - 2 * around) / 2, clientWidth / Math.max(a, b));
    this.#pictureRow.classList.toggle("i2am-stacked", stacked > beside);
    const height = Math.max(Math.floor(Math.max(beside, stacked)), 24);
    result.resize(Math.floor(height * a), height);
    right.resize(Math.floor(height * b), height);
  }

  /**
   * A picture, or null while it is on its way or if it is gone.
   *
   * @param {File | undefined} file
   */
  #picture(file) {
    if (!file) return null;
    const url = this.#host.urlOf(file);
    const known = this.#pictures.get(url);
    if (known !== undefined) return known;
    this.#pictures.set(url, null);
    const pictures = this.#pictures;
    const image = new Image();
    image.src = url;
    image.decode().then(
      () => {
        if (!this.#payload || pictures.get(url) !== null) return;
        pictures.set(url, image);
        this.#changed();
      },
      () => this.#notice("A picture is gone from the temporary folder. Press Run to see it again."),
    );
    return null;
  }

  /**
   * @param {SideName} side
   * @param {Fitted} choice
   * @returns {import("./metric.js").Mask | null}
   */
  #mask(side, choice) {
    const name = side === "result" ? "mask" : `reference_mask.${choice.reference}`;
    const table = this.#payload?.tables.get(name);
    if (!table) return null;
    const [count, height, width] = table.shape;
    const start = Math.min(choice.item, count - 1) * height * width;
    const data = /** @type {Uint8Array} */ (table.data).subarray(start, start + height * width);
    return { data, height, width };
  }

  /**
   * @param {SideName} side
   * @param {Fitted} choice
   */
  #maskOutline(side, choice) {
    return this.#keep(`mask ${side}`, [choice.item, choice.reference], () => {
      const mask = this.#mask(side, choice);
      return mask && outline(mask.data, mask.height, mask.width, 127.5);
    });
  }

  /**
   * Scores what is painted under a mask, once it has stood for a moment.
   *
   * @param {Fitted} choice
   */
  #rescore(choice) {
    clearTimeout(this.#scoring);
    if (!SIDES.some((side) => this.#mask(side, choice))) return;
    this.#scoring = setTimeout(() => {
      for (const side of SIDES) {
        const [mask, layer] = [this.#mask(side, choice), this.#panels[side].layer];
        const score = mask && layer ? imacs(layer.values, layer.grid, mask) : null;
        this.#panels[side].setScore(score);
      }
    }, SCORE_AFTER);
  }

  /**
   * @param {import("./payload.js").Header} header
   * @param {Fitted} choice
   * @param {Pin | null} asked
   * @param {string} label
   * @param {Layer | null} shown
   */
  #speak(header, choice, asked, label, shown) {
    const what = asked
      ? words.pointSentence(header, choice, asked)
      : words.mapSentence(header, choice, label);
    const range = shown ? words.rangeWords(extent([shown.values]), shown.unit) : "not recorded";
    const pooled = header.pooled.length ? " · made coarser to fit" : "";
    const said = `${what} · ${range}${pooled}`;
    if (this.#sentence.textContent !== said) this.#sentence.textContent = said;
    const direction = asked ? (asked.side === "result" ? "g2r" : "r2g") : choice.direction;
    const unit = shown?.unit ?? "×";
    const notes = words.explanation(header, choice, direction, asked !== null, unit);
    if (header.pooled.length) notes.push(`Made coarser to fit: ${header.pooled.join(", ")}.`);
    this.#keep("notes", notes, () =>
      this.#notes.replaceChildren(...notes.map((note) => make("p", {}, note))),
    );
  }

  // --- messages ---------------------------------------------------------------------------------

  /**
   * @param {string} text
   * @param {"empty" | "loading" | "expired" | "error" | "ready"} kind
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
    this.#payload = this.#output = null;
    this.#kept.clear();
    this.#say(text, kind);
  }

  /** @param {string} text shown for a while */
  #notice(text) {
    this.#controls.notice.textContent = text;
    clearTimeout(this.#noticing);
    this.#noticing = setTimeout(() => {
      this.#controls.notice.textContent = "";
    }, NOTICE_FOR);
  }

  // --- taking things away -----------------------------------------------------------------------

  #composed() {
    const { header, choice } =
      /** @type {{header: import("./payload.js").Header, choice: Fitted}} */ (this.#fitted());
    const panels = SIDES.map((side) => this.#panels[side]);
    const tallest = Math.max(...panels.map(({ size }) => size[0]));
    const height = Math.min(Math.max(tallest, EXPORT_SIDE[0]), EXPORT_SIDE[1]);
    const widths = panels.map(({ size }) => Math.round((height * size[1]) / size[0]));
    const [gap, foot] = [16, 76];
    const canvas = make("canvas");
    canvas.width = widths[0] + widths[1] + 3 * gap;
    canvas.height = height + gap + foot;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = "#161618";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.textBaseline = "middle";
    panels.forEach((panel, index) => {
      const left = gap + index * (widths[0] + gap);
      context.drawImage(panel.compose(widths[index], height), left, gap);
      if (panel.layer) {
        const table = colorTable(header, choice.colormap);
        legend(context, panel.layer, table, left, height + gap + 20, widths[index]);
      }
    });
    context.fillStyle = "#ececee";
    context.font = "15px sans-serif";
    const said = this.#sentence.textContent ?? "";
    context.fillText(said, gap, height + gap + 54, canvas.width - 2 * gap);
    return canvas;
  }

  #savePng = async () => {
    const url = URL.createObjectURL(await this.exportPng());
    make("a", { href: url, download: "attribution.png" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };

  /** The map that is looked at: the one of a place, or the chosen one. */
  #shownLayer() {
    const choice = this.#fitted()?.choice;
    if (!choice) return null;
    const side = choice.pin
      ? choice.pin.side === "result"
        ? "reference"
        : "result"
      : choice.direction === "r2g"
        ? "result"
        : "reference";
    const panel = this.#panels[/** @type {SideName} */ (side)];
    return panel.layer && { side, layer: panel.layer, size: panel.size };
  }

  #copy = async () => {
    const shown = this.#shownLayer();
    if (!shown) return;
    const { values, grid } = shown.layer;
    const rows = Array.from({ length: grid.height }, (_, row) =>
      [...values.subarray(row * grid.width, (row + 1) * grid.width)]
        .map((value) => Number(value.toPrecision(6)))
        .join("\t"),
    );
    const said = `${this.#sentence.textContent} · rows from the top`;
    await copyText([said, ...rows].join("\n"), this.element);
    this.#notice(`Copied ${grid.height} × ${grid.width} values.`);
  };

  #sendMask = async () => {
    const shown = this.#shownLayer();
    if (!shown) return;
    const { values, grid, range, factor } = shown.layer;
    const [height, width] = shown.size;
    const painted = normalised(values, grid, height, width, range[0], factor);
    try {
      const png = await maskPng(painted, height, width);
      const name = await this.#host.upload(png, `i2am_mask_${shown.side}.png`);
      this.#notice(`Saved as ${name} in the input folder. Choose it in Load Image (as Mask).`);
    } catch (error) {
      this.#notice(`The mask was not saved (${error}). Is the server still there?`);
    }
  };

  // --- controls ---------------------------------------------------------------------------------

  /** @param {number} count */
  #play(count) {
    if (this.#playing) {
      clearTimeout(this.#playing);
      this.#playing = 0;
      return this.#changed();
    }
    const next = () => {
      this.#playing = setTimeout(next, PLAY_EVERY);
      this.#state = reduce(this.#state, { type: "move", by: 1, count });
      this.#changed();
    };
    next();
  }

  #makeControls() {
    const set = this.#set;
    const notice = make("output", { class: "i2am-notice" });
    const button = (
      /** @type {string} */ text,
      /** @type {string} */ title,
      /** @type {() => void} */ click,
    ) => {
      // Words are their own names; signs need one.
      const name = /^\w/.test(text) ? {} : { "aria-label": title };
      return make("button", { type: "button", class: "i2am-icon", title, click, ...name }, text);
    };

    const back = button("‹", "Picture before", () => step(-1));
    const next = button("›", "Next picture", () => step(1));
    const items = make("span", { class: "i2am-items" }, back, next);
    const step = (/** @type {number} */ by) => {
      const fitted = this.#fitted();
      if (fitted)
        set({ item: (fitted.choice.item + by + fitted.header.batch) % fitted.header.batch });
    };
    const unpin = button("Unpin", "Let go of the pinned place (Escape)", this.#clear);
    const top = make(
      "div",
      { class: "i2am-row" },
      this.#tabs,
      items,
      notice,
      unpin,
      button("Copy", "Copy the values of the map, to paste into a spreadsheet", this.#copy),
      button("PNG", "Save what is shown as a PNG", this.#savePng),
      button("Mask", "Send the map as a mask to ComfyUI's input folder", this.#sendMask),
    );

    const direction = segmented(
      "Direction",
      [
        {
          value: "r2g",
          text: "Where used",
          title: "Over the result: where the reference was used (R2G)",
        },
        { value: "g2r", text: "What used", title: "Over the reference: what of it was used (G2R)" },
      ],
      (value) => set({ direction: value }),
    );
    const level = segmented(
      "Level",
      [
        { value: "unified", text: "All", title: "One map: the mean of everything chosen" },
        { value: "time", text: "Steps", title: "A map for each step, noisiest first" },
        { value: "layer", text: "Layers", title: "A map for each layer" },
        { value: "head", text: "Heads", title: "A map for each head" },
      ],
      (value) => set({ level: value, map: 0 }),
    );
    let count = 1;
    const play = button("▶", "Play", () => this.#play(count));
    const scrub = slider("", "Which of the maps", { min: 0, max: 0, step: 1 }, (map) =>
      set({ map }),
    );
    scrub.element.querySelector("input")?.setAttribute("aria-label", "Which of the maps");
    const time = make("div", { class: "i2am-scrub" }, play, scrub.element);
    const unfold = make(
      "button",
      {
        type: "button",
        class: "i2am-icon",
        title: "Steps, layers, colours and more",
        click: () => set({ settings: !this.#state.settings }),
      },
      "Settings",
    );
    const bottom = make(
      "div",
      { class: "i2am-row" },
      direction.element,
      level.element,
      time,
      make("span", { class: "i2am-space" }),
      unfold,
    );

    const definition = select("Definition", "Which softmax a map is made of", (value) =>
      set({ definition: value === "paper" ? "paper" : "model" }),
    );
    const steps = rangeSlider("Steps", "Which steps to average", (range) => set({ steps: range }));
    const layers = rangeSlider("Layers", "Which layers to average", (range) =>
      set({ layers: range }),
    );
    const head = select("Head", "The mean of all heads, or one (over all steps)", (value) =>
      set({ head: value === "" ? null : Number(value) }),
    );
    const frame = select("Frame", "Which latent frame of the video", (value) =>
      set({ frame: value === "" ? null : Number(value) }),
    );
    const colormap = select(
      "Colours",
      "Jet is for comparing with the paper; it invents edges",
      (value) => set({ colormap: value }),
    );
    const opacity = slider("Opacity", "How strongly the colours cover the picture", PART, (value) =>
      set({ opacity: value }),
    );
    const scale = select(
      "Scale",
      "Per map: each map's own lowest to highest. Shared: of all maps of the level. Absolute: the " +
        "same for every run",
      (value) => set({ scale: /** @type {State["scale"]} */ (value) }),
    );
    const threshold = slider(
      "Outline",
      "A line where the map reaches this part of its range",
      PART,
      (value) => set({ threshold: value }),
    );
    const settings = make(
      "div",
      { class: "i2am-settings" },
      ...[steps, layers, definition, head, frame, colormap, scale, opacity, threshold].map(
        ({ element }) => element,
      ),
    );
    const explain = button("?", "What is this?", () => {
      this.#notes.hidden = !this.#notes.hidden;
      explain.setAttribute("aria-expanded", String(!this.#notes.hidden));
      this.#changed();
    });
    explain.setAttribute("aria-expanded", "false");

    /**
     * @param {import("./payload.js").Header} header
     * @param {Fitted} choice
     * @param {Maps | null} maps
     * @param {number} index
     */
    const update = (header, choice, maps, index) => {
      const most = Math.max(...header.heads);
      const { has_places: places, kind } = header.references[choice.reference];
      const byHead = choice.level === "head" || choice.head !== null;
      this.#updateTabs(header, choice);
      items.hidden = header.batch < 2;
      unpin.hidden = !choice.pin;
      direction.update(choice.direction, (value) =>
        value === "g2r" && !places
          ? `The ${kind} stand for the whole picture, not for places in it`
          : "",
      );
      level.update(choice.level, (value) =>
        value === "head" && most === 0 ? "Heads were left out to fit, or not recorded" : "",
      );
      count = maps?.values.length ?? 1;
      time.hidden = choice.level === "unified";
      scrub.update(index, maps?.labels[index] ?? "", count - 1);
      play.textContent = this.#playing ? "❚❚" : "▶";
      play.title = this.#playing ? "Pause" : "Play";
      play.setAttribute("aria-label", play.title);
      if (this.#playing && choice.level === "unified") this.#play(count);
      settings.hidden = !choice.settings;
      unfold.setAttribute("aria-expanded", String(choice.settings));

      definition.update(choice.definition, [
        { value: "model", text: "model" },
        { value: "paper", text: "paper" },
      ]);
      steps.update(
        choice.steps,
        header.steps.length,
        choice.steps ? words.rangeLabel(header.steps, choice.steps) : "all",
        byHead ? "Heads were kept over all steps" : "",
      );
      layers.update(
        choice.layers,
        header.layers.length,
        choice.layers ? words.rangeLabel(header.layers, choice.layers) : "all",
        "",
      );
      head.element.hidden = most < 2;
      head.update(choice.head === null ? "" : `${choice.head}`, [
        { value: "", text: "mean of all" },
        ...Array.from({ length: most }, (_, n) => ({ value: `${n}`, text: `${n}` })),
      ]);
      const side =
        choice.direction === "r2g" ? header.generated : header.references[choice.reference];
      frame.element.hidden = side.frames < 2;
      frame.update(choice.frame === null ? "" : `${choice.frame}`, [
        { value: "", text: "mean of all" },
        ...Array.from({ length: side.frames }, (_, n) => ({ value: `${n}`, text: `${n}` })),
      ]);
      colormap.update(
        choice.colormap,
        Object.keys(header.colormaps).map((name) => ({ value: name, text: name })),
      );
      opacity.update(choice.opacity, `${Math.round(choice.opacity * 100)}%`);
      scale.update(
        choice.scale,
        ["per map", "shared", "absolute"].map((name) => ({ value: name, text: name })),
      );
      threshold.update(
        choice.threshold,
        choice.threshold ? `${Math.round(choice.threshold * 100)}%` : "off",
      );
    };
    return { top, bottom, settings, explain, notice, update };
  }

  /** @type {any} what `#makeControls` gives */
  #controls;

  /**
   * @param {import("./payload.js").Header} header
   * @param {Fitted} choice
   */
  #updateTabs(header, choice) {
    const { references } = header;
    this.#tabs.hidden = references.length < 2;
    this.#keep("tabs", [choice.item], () =>
      this.#tabs.replaceChildren(
        ...references.map(({ label }, r) =>
          make(
            "button",
            {
              type: "button",
              title: `${words.capital(label)}: its share of the result's attention`,
              click: () => this.#set({ reference: r }),
            },
            words.capital(label),
            make("small", {}, words.percent(header.share.references[r][choice.item])),
          ),
        ),
      ),
    );
    [...this.#tabs.children].forEach((tab, r) => {
      tab.setAttribute("aria-pressed", String(r === choice.reference));
    });
  }
}

const PART = { min: 0, max: 1, step: 0.05 };

/**
 * @param {Maps} maps
 * @param {number} index
 * @param {State["scale"]} scale
 * @returns {Layer}
 */
function layerOf(maps, index, scale) {
  const range = rangeOf(maps, index, scale);
  const { values, grid, unit } = maps;
  return { values: values[index], grid, unit, range, factor: stretch(...range) };
}

/**
 * Of a video the picture in the middle of a frame's own, else the item's.
 *
 * @param {File[]} files those of all items, one after the other
 * @param {number} batch
 * @param {number} item
 * @param {import("./payload.js").Side} side
 * @param {number | null} frame
 */
function pictureOf(files, batch, item, { frame_of }, frame) {
  const each = Math.floor(files.length / batch);
  const own = files.slice(item * each, (item + 1) * each);
  const shown = frame_of ? own.filter((_, n) => frame === null || frame_of[n] === frame) : own;
  return shown[Math.floor(shown.length / 2)];
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Layer} layer
 * @param {Uint8Array} table
 * @param {number} left
 * @param {number} y
 * @param {number} width
 */
function legend(context, { range, unit }, table, left, y, width) {
  const [low, high] = words.rangeWords(range, unit).split(" – ");
  context.font = "14px sans-serif";
  context.fillStyle = "#ececee";
  context.fillText(low, left, y);
  const from = left + context.measureText(low).width + 8;
  const to = left + width - context.measureText(high).width - 8;
  context.fillText(high, to + 8, y);
  for (let x = Math.round(from); x < to; x += 1) {
    const entry = Math.min(Math.floor((256 * (x - from)) / (to - from)), 255) * 3;
    context.fillStyle = `rgb(${table.subarray(entry, entry + 3)})`;
    context.fillRect(x, y - 6, 1, 12);
  }
}

/**
 * @param {string} text
 * @param {HTMLElement} near
 */
async function copyText(text, near) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that are not served securely have only the old way.
  const area = make("textarea", { class: "i2am-hidden" });
  area.value = text;
  near.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
