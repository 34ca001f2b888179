// @ts-check
/** Drawn above a map: its outline, the outline of a mask, and the places asked about. */

import { cellAt, middle, rectangleOf } from "../maps/grid.js";
import { outline, paintedValues } from "./paint.js";

/** @typedef {import("../maps/grid.js").Grid} Grid */
/** @typedef {import("../maps/grid.js").Place} Place */
/** @typedef {import("../viewer/panel.js").Layer} Layer */
/** @typedef {import("../viewer/panel.js").Look} Look */
/** @typedef {import("../viewer/panel.js").Marks} Marks */

const PER_CELL = 6; // outline points per cell
const OUTLINE_CELLS = 320; // outline points per side, at most

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Layer | null} layer
 * @param {Look} look
 * @param {Marks} marks
 * @param {number} unit canvas pixels per CSS pixel
 */
export function drawMarks(context, layer, look, marks, unit) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  if (layer && look.threshold > 0) {
    const [rows, columns] = [layer.grid, layer.grid].map((grid, axis) =>
      Math.min(Math.ceil(grid.covered[axis] * PER_CELL), OUTLINE_CELLS),
    );
    const field = paintedValues(layer, rows, columns);
    stroke(context, outline(field, rows, columns, look.threshold), unit, "#fff");
  }
  if (marks.mask) stroke(context, marks.mask, unit, "#6ee7ff", [4, 3]);
  for (const [place, color] of /** @type {[Place | null, string][]} */ ([
    [marks.pinned, "#ffd166"],
    [marks.asked, "#fff"],
  ])) {
    if (place) drawPlace(context, place, marks.grid, unit, color);
  }
}

/**
 * Draws pieces of an outline: a light line over a dark one, visible on any background.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Float32Array} pieces
 * @param {number} unit
 * @param {string} color
 * @param {number[]} dashes
 */
function stroke(context, pieces, unit, color, dashes = []) {
  const { width, height } = context.canvas;
  context.beginPath();
  for (let i = 0; i < pieces.length; i += 4) {
    context.moveTo(pieces[i] * width, pieces[i + 1] * height);
    context.lineTo(pieces[i + 2] * width, pieces[i + 3] * height);
  }
  strokeTwice(context, unit, color, dashes);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} unit
 * @param {string} color
 * @param {number[]} dashes
 */
function strokeTwice(context, unit, color, dashes) {
  context.lineCap = context.lineJoin = "round";
  context.setLineDash([]);
  context.strokeStyle = "rgba(0, 0, 0, 0.65)";
  context.lineWidth = 3 * unit;
  context.stroke();
  context.setLineDash(dashes.map((dash) => dash * unit));
  context.strokeStyle = color;
  context.lineWidth = 1.5 * unit;
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Place} place
 * @param {Grid | null} grid
 * @param {number} unit
 * @param {string} color
 */
function drawPlace(context, place, grid, unit, color) {
  const { width, height } = context.canvas;
  context.beginPath();
  if (place.kind === "brush") {
    const [first, ...more] = place.points;
    context.moveTo(first[0] * width, first[1] * height);
    for (const [x, y] of more.length ? more : [first]) context.lineTo(x * width, y * height);
    context.lineCap = context.lineJoin = "round";
    context.setLineDash([]);
    context.globalAlpha = 0.45;
    context.strokeStyle = color;
    context.lineWidth = 2 * place.radius * Math.max(width, height);
    context.stroke();
    context.globalAlpha = 1;
    return;
  }
  const box =
    place.kind === "point" && grid ? rectangleOf(grid, cellAt(grid, place.x, place.y)) : place;
  if (box.kind === "rectangle") {
    const [x, y] = [box.left * width, box.top * height];
    context.rect(x, y, (box.right - box.left) * width, (box.bottom - box.top) * height);
  } else {
    const [x, y] = middle(box);
    context.arc(x * width, y * height, 5 * unit, 0, 2 * Math.PI);
  }
  strokeTwice(context, unit, color, []);
}
