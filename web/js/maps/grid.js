// @ts-check
/** Cells of a picture: which cell a point is in, how much of each a region covers, resampling. */

/**
 * The cells of one picture, row by row from the top left. The last row and column may extend past
 * the picture; `covered` is its height and width in cells. Values on a grid: one per cell.
 *
 * @typedef {{height: number, width: number, covered: [number, number]}} Grid
 */

/**
 * A place on a picture; numbers are fractions of its width (x) and height (y), 0 to 1 from the top
 * left. A brush is the strip within `radius` (a fraction of the picture's longer side) of a line
 * through points; `aspect` is the picture's width divided by its height.
 *
 * @typedef {{kind: "point", x: number, y: number}} Point
 * @typedef {{kind: "rectangle", left: number, top: number, right: number, bottom: number}} Rectangle
 * @typedef {{kind: "brush", points: [number, number][], radius: number, aspect: number}} Brush
 * @typedef {Point | Rectangle | Brush} Place
 */

const CUBIC = -0.75; // the free parameter of torch's bicubic
const SAMPLES = 6; // per side of a cell, to measure how much of it a brush covers

/**
 * @param {number[]} sides
 * @param {number[]} covered
 * @returns {Grid}
 */
export function makeGrid([height, width], [down, across]) {
  return { height, width, covered: [down, across] };
}

/** @param {Grid} grid */
export function area(grid) {
  return grid.height * grid.width;
}

/**
 * The cell a point is in.
 *
 * @param {Grid} grid
 * @param {number} x
 * @param {number} y
 */
export function cellAt({ height, width, covered }, x, y) {
  const row = Math.min(Math.floor(y * covered[0]), height - 1);
  const column = Math.min(Math.floor(x * covered[1]), width - 1);
  return Math.max(row, 0) * width + Math.max(column, 0);
}

/**
 * The part of the picture a cell covers.
 *
 * @param {Grid} grid
 * @param {number} cell
 * @returns {Rectangle}
 */
export function rectangleOf({ width, covered }, cell) {
  const [row, column] = [Math.floor(cell / width), cell % width];
  return {
    kind: "rectangle",
    left: column / covered[1],
    top: row / covered[0],
    right: Math.min((column + 1) / covered[1], 1),
    bottom: Math.min((row + 1) / covered[0], 1),
  };
}

/**
 * How much of each cell a place covers, 0 to 1. A place that covers nothing gets its cell in full.
 *
 * @param {Grid} grid
 * @param {Place} place
 * @returns {Float32Array}
 */
export function coverage(grid, place) {
  const weights = new Float32Array(area(grid));
  const { height, width, covered } = grid;
  if (place.kind === "rectangle") {
    const down = overlaps(height, covered[0], place.top, place.bottom);
    const across = overlaps(width, covered[1], place.left, place.right);
    for (let cell = 0; cell < weights.length; cell += 1) {
      weights[cell] = down[Math.floor(cell / width)] * across[cell % width];
    }
  } else if (place.kind === "brush") {
    for (let cell = 0; cell < weights.length; cell += 1) {
      weights[cell] = brushed(rectangleOf(grid, cell), place);
    }
  }
  if (!weights.some((weight) => weight > 0)) {
    const [x, y] = middle(place);
    weights[cellAt(grid, x, y)] = 1;
  }
  return weights;
}

/**
 * @param {Place} place
 * @returns {[number, number]} x and y
 */
export function middle(place) {
  if (place.kind === "point") return [place.x, place.y];
  if (place.kind === "rectangle") {
    return [(place.left + place.right) / 2, (place.top + place.bottom) / 2];
  }
  return place.points[Math.floor(place.points.length / 2)];
}

/**
 * The fraction of each cell in a row or column that lies between two points of the picture.
 *
 * @param {number} cells
 * @param {number} covered
 * @param {number} from
 * @param {number} to
 */
function overlaps(cells, covered, from, to) {
  return Array.from({ length: cells }, (_, cell) => {
    const end = Math.min(cell + 1, covered);
    const inside = Math.min(to * covered, end) - Math.max(from * covered, cell);
    return Math.max(inside, 0) / (end - cell);
  });
}

/**
 * @param {Rectangle} cell
 * @param {Brush} brush
 */
function brushed(cell, brush) {
  // In fractions of the longer side, so that the brush is round.
  const across = Math.min(brush.aspect, 1);
  const down = Math.min(1 / brush.aspect, 1);
  let inside = 0;
  for (let sample = 0; sample < SAMPLES * SAMPLES; sample += 1) {
    const right = ((sample % SAMPLES) + 0.5) / SAMPLES;
    const below = (Math.floor(sample / SAMPLES) + 0.5) / SAMPLES;
    const x = (cell.left + (cell.right - cell.left) * right) * across;
    const y = (cell.top + (cell.bottom - cell.top) * below) * down;
    if (nearLine(x, y, brush, across, down)) inside += 1;
  }
  return inside / (SAMPLES * SAMPLES);
}

/**
 * @param {number} x
 * @param {number} y
 * @param {Brush} brush
 * @param {number} across
 * @param {number} down
 */
function nearLine(x, y, { points, radius }, across, down) {
  return points.some(([endX, endY], index) => {
    const [startX, startY] = points[Math.max(index - 1, 0)];
    const [fromX, fromY] = [startX * across, startY * down];
    const [alongX, alongY] = [endX * across - fromX, endY * down - fromY];
    const length = alongX * alongX + alongY * alongY;
    const dot = (x - fromX) * alongX + (y - fromY) * alongY;
    const at = length > 0 ? Math.min(Math.max(dot / length, 0), 1) : 0;
    return Math.hypot(x - fromX - at * alongX, y - fromY - at * alongY) <= radius;
  });
}

/**
 * The cells that each pixel in a line reads: `taps` cells and weights per pixel.
 *
 * @typedef {{taps: number, cells: Int32Array, weights: Float32Array}} Reading
 */

/**
 * Like `_reading` in i2am/display/render.py: torch's bicubic, or the mean of the cells under a
 * pixel.
 *
 * @param {number} cells
 * @param {number} covered
 * @param {number} pixels
 * @returns {Reading}
 */
export function reading(cells, covered, pixels) {
  const step = covered / pixels; // in cells
  const taps = step > 1 ? Math.ceil(step) + 1 : 4;
  const from = new Int32Array(pixels * taps);
  const weights = new Float32Array(pixels * taps);
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    const [start, end] = [pixel * step, (pixel + 1) * step];
    const centre = (start + end) / 2 - 0.5; // 0 at the centre of the first cell
    const first = step > 1 ? Math.floor(start) : Math.floor(centre) - 1;
    for (let tap = 0; tap < taps; tap += 1) {
      const cell = first + tap;
      const at = pixel * taps + tap;
      from[at] = Math.min(Math.max(cell, 0), cells - 1); // the border repeats
      weights[at] =
        step > 1
          ? Math.max(Math.min(end, cell + 1) - Math.max(start, cell), 0) / step
          : cubic(Math.abs(centre - cell));
    }
  }
  return { taps, cells: from, weights };
}

/** @param {number} x */
function cubic(x) {
  if (x <= 1) return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
  return CUBIC * (((x - 5) * x + 8) * x - 4);
}

/**
 * Resamples cells to the picture's pixels, like `resample` in i2am/display/render.py. Values can
 * fall below the lowest cell or rise above the highest.
 *
 * @param {ArrayLike<number>} values
 * @param {Grid} grid
 * @param {number} height in pixels
 * @param {number} width
 * @returns {Float32Array}
 */
export function resample(values, grid, height, width) {
  const down = reading(grid.height, grid.covered[0], height);
  const across = reading(grid.width, grid.covered[1], width);
  const cells = grid.width;
  const line = new Float32Array(cells);
  const pixels = new Float32Array(height * width);
  for (let y = 0; y < height; y += 1) {
    line.fill(0);
    for (let tap = y * down.taps; tap < (y + 1) * down.taps; tap += 1) {
      const weight = down.weights[tap];
      const row = down.cells[tap] * cells;
      for (let x = 0; x < cells; x += 1) line[x] += weight * values[row + x];
    }
    readLine(line, across, pixels, y * width, width);
  }
  return pixels;
}

/**
 * @param {Float32Array} line
 * @param {Reading} across
 * @param {Float32Array} pixels
 * @param {number} start
 * @param {number} width
 */
function readLine(line, { taps, cells, weights }, pixels, start, width) {
  for (let x = 0; x < width; x += 1) {
    let value = 0;
    for (let tap = x * taps; tap < (x + 1) * taps; tap += 1) {
      value += weights[tap] * line[cells[tap]];
    }
    pixels[start + x] = value;
  }
}
