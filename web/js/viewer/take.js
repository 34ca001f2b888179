// @ts-check
/** Exports what is shown: as one picture, as text, as a mask. */

import { paintedValues } from "../drawing/paint.js";
import { maskPng } from "../drawing/png.js";
import { make } from "./controls.js";
import * as words from "./wording.js";

/** @typedef {import("./panel.js").Layer} Layer */
/** @typedef {import("./panel.js").Panel} Panel */

const SIDE = [512, 1536]; // pixels: the height of an exported picture, at least and at most
const GAP = 16;
const FOOT = 76; // for the colour bars and the sentence
const PAPER = "#161618"; // as in i2am/display/render.py
const INK = "#ececee";

/**
 * Pictures side by side as they are shown, their colour bars and a sentence below.
 *
 * @param {Panel[]} panels
 * @param {Uint8Array} table of the colours
 * @param {string} sentence
 */
export function composed(panels, table, sentence) {
  const tallest = Math.max(...panels.map(({ size }) => size[0]));
  const height = Math.min(Math.max(tallest, SIDE[0]), SIDE[1]);
  const widths = panels.map(({ size }) => Math.round((height * size[1]) / size[0]));
  const canvas = make("canvas");
  canvas.width = widths.reduce((sum, width) => sum + width + GAP, GAP);
  canvas.height = height + GAP + FOOT;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = PAPER;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.textBaseline = "middle";
  context.fillStyle = INK;
  let left = GAP;
  panels.forEach((panel, index) => {
    context.drawImage(panel.compose(widths[index], height), left, GAP);
    if (panel.layer) legend(context, panel.layer, table, left, height + GAP + 20, widths[index]);
    left += widths[index] + GAP;
  });
  context.fillStyle = INK;
  context.font = "15px sans-serif";
  context.fillText(sentence, GAP, height + GAP + 54, canvas.width - 2 * GAP);
  return canvas;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Layer} layer
 * @param {Uint8Array} table
 * @param {number} left
 * @param {number} y
 * @param {number} width
 */
function legend(context, layer, table, left, y, width) {
  const [low, high] = words.rangeEnds(layer);
  context.font = "14px sans-serif";
  context.fillStyle = INK;
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
 * @param {HTMLCanvasElement} canvas
 * @returns {Promise<Blob>}
 */
export function pngOf(canvas) {
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("no PNG"))), "image/png");
  });
}

/**
 * @param {Blob} file
 * @param {string} name
 */
export function download(file, name) {
  const url = URL.createObjectURL(file);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/**
 * A map's values for a spreadsheet, row by row from the top.
 *
 * @param {Layer} layer
 */
export function valuesText({ values, grid }) {
  const rows = Array.from({ length: grid.height }, (_, row) =>
    [...values.subarray(row * grid.width, (row + 1) * grid.width)]
      .map((value) => Number(value.toPrecision(6)))
      .join("\t"),
  );
  return rows.join("\n");
}

/**
 * The painted values as a mask of a picture; zero where the model did not see it.
 *
 * @param {Layer} layer
 * @param {[number, number]} size height and width of the part that the map lies over
 * @param {import("../maps/payload.js").Whole | null} whole the picture that this is a part of
 */
export function maskOf(layer, [height, width], whole) {
  const values = paintedValues(layer, height, width);
  if (!whole) return maskPng(values, height, width);
  const [tall, wide] = whole.size;
  const [top, left] = whole.part;
  const placed = new Float32Array(tall * wide);
  for (let row = 0; row < height; row += 1) {
    placed.set(values.subarray(row * width, (row + 1) * width), (top + row) * wide + left);
  }
  return maskPng(placed, tall, wide);
}

/**
 * @param {string} text
 * @param {HTMLElement} near
 */
export async function copyText(text, near) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that are not served securely have no clipboard API.
  const area = make("textarea", { class: "i2am-hidden" });
  area.value = text;
  near.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
