// @ts-check
/** Values that are made anew only when what they are made of changes. */

export class Memo {
  /** @type {Map<string, {facts: string, value: unknown}>} the last value of each name */
  #kept = new Map();

  /**
   * @template T
   * @param {string} name
   * @param {unknown[]} facts what the value is made of; plain values
   * @param {() => T} build
   * @returns {T}
   */
  get(name, facts, build) {
    const now = JSON.stringify(facts);
    const kept = this.#kept.get(name);
    if (kept?.facts === now) return /** @type {T} */ (kept.value);
    const value = build();
    this.#kept.set(name, { facts: now, value });
    return value;
  }
}
