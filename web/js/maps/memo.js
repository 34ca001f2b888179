// @ts-check
/** Values that are rebuilt only when their inputs change. */

export class Memo {
  /** @type {Map<string, {facts: string, value: unknown}>} the last value of each name */
  #kept = new Map();

  /**
   * @template T
   * @param {string} name
   * @param {unknown[]} facts the inputs of the value; plain data
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
