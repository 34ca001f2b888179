// @ts-check
/** Small controls made of native elements, so that keyboards and screen readers know them. */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [attributes] "class" and others; functions become event listeners
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * @template V
 * @typedef {{element: HTMLElement, update: (value: V) => void}} Control
 */

/**
 * A few choices side by side.
 *
 * @param {string} label
 * @param {{value: string, text: string, title: string}[]} options
 * @param {(value: any) => void} choose
 */
export function segmented(label, options, choose) {
  const buttons = options.map(({ value, text, title }) =>
    make("button", { type: "button", title, click: () => choose(value) }, text),
  );
  const element = make("div", { class: "i2am-segments", role: "group", "aria-label": label });
  element.append(...buttons);
  return {
    element,
    /**
     * @param {string} value
     * @param {(value: string) => string} why a choice cannot be made; "" if it can
     */
    update(value, why) {
      options.forEach((option, index) => {
        const reason = why(option.value);
        buttons[index].setAttribute("aria-pressed", String(option.value === value));
        buttons[index].disabled = reason !== "";
        buttons[index].title = reason || option.title;
      });
    },
  };
}

/**
 * A drop-down list.
 *
 * @param {string} label
 * @param {string} title
 * @param {(value: string) => void} choose
 */
export function select(label, title, choose) {
  const list = make("select", { change: () => choose(list.value) });
  const element = make("label", { class: "i2am-field", title }, make("span", {}, label), list);
  let known = "";
  return {
    element,
    /**
     * @param {string} value
     * @param {{value: string, text: string}[]} options
     * @param {string} reason why nothing can be chosen; "" if it can
     */
    update(value, options, reason = "") {
      const offered = JSON.stringify(options);
      if (offered !== known) {
        known = offered;
        list.replaceChildren(
          ...options.map((option) => make("option", { value: option.value }, option.text)),
        );
      }
      list.value = value;
      list.disabled = reason !== "";
      element.title = reason || title;
    },
  };
}

/**
 * A slider with a readout.
 *
 * @param {string} label
 * @param {string} title
 * @param {{min: number, max: number, step: number}} limits
 * @param {(value: number) => void} move
 */
export function slider(label, title, limits, move) {
  const input = make("input", {
    type: "range",
    ...limits,
    input: () => move(Number(input.value)),
  });
  const output = make("output");
  const element = make(
    "label",
    { class: "i2am-field", title },
    make("span", {}, label),
    input,
    output,
  );
  return {
    element,
    /**
     * @param {number} value
     * @param {string} text
     * @param {number} [max]
     */
    update(value, text, max = limits.max) {
      input.max = String(max);
      input.value = String(value);
      input.setAttribute("aria-valuetext", text);
      output.textContent = text;
    },
  };
}

/**
 * A slider with two thumbs; both at the ends mean everything.
 *
 * @param {string} label
 * @param {string} title
 * @param {(range: [number, number] | null) => void} move
 */
export function rangeSlider(label, title, move) {
  const hand = (/** @type {string} */ name, /** @type {boolean} */ low) =>
    make("input", {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": `${name} ${label.toLowerCase()}`,
      input: () => changed(low),
    });
  const [first, last] = [hand("First", true), hand("Last", false)];
  const output = make("output");
  const track = make("span", { class: "i2am-track" }, first, last);
  const element = make(
    "div",
    { class: "i2am-field", role: "group", "aria-label": label, title },
    make("span", {}, label),
    track,
    output,
  );

  /** @param {boolean} low */
  function changed(low) {
    const [from, to] = [Number(first.value), Number(last.value)];
    const end = Number(last.max);
    const range = low ? [Math.min(from, to), to] : [from, Math.max(from, to)];
    move(range[0] === 0 && range[1] === end ? null : [range[0], range[1]]);
  }

  return {
    element,
    /**
     * @param {[number, number] | null} range
     * @param {number} count
     * @param {string} text
     * @param {string} reason why it cannot be moved; "" if it can
     */
    update(range, count, text, reason) {
      const [from, to] = range ?? [0, count - 1];
      for (const [input, value] of /** @type {[HTMLInputElement, number][]} */ ([
        [first, from],
        [last, to],
      ])) {
        input.max = String(count - 1);
        input.value = String(value);
        input.disabled = reason !== "" || count < 2;
      }
      // Where both thumbs meet at the right end, the lower one must be on top.
      first.style.zIndex = from === count - 1 ? "2" : "";
      const part = (/** @type {number} */ n) => (count > 1 ? (100 * n) / (count - 1) : 0);
      track.style.setProperty("--from", `${part(from)}%`);
      track.style.setProperty("--to", `${count > 1 ? part(to) : 100}%`);
      output.textContent = text;
      element.title = reason || title;
    },
  };
}
