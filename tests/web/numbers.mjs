// Works out what the viewer shows of a payload, for tests/test_viewer_numbers.py:
//   node numbers.mjs payload.i2am questions.json   → the answers, as JSON, on standard output
import { readFileSync } from "node:fs";
import { colorize, dim, lookup, paintedValues } from "../../web/js/drawing/paint.js";
import { imacs } from "../../web/js/maps/imacs.js";
import { pointMap, rangeOf, selectMaps } from "../../web/js/maps/maps.js";
import { colorTable, parsePayload } from "../../web/js/maps/payload.js";
import { rankAt, wordMaps } from "../../web/js/maps/words.js";
import { fit, readState } from "../../web/js/viewer/state.js";

const [file, questions] = process.argv.slice(2);
const bytes = readFileSync(file);
const payload = parsePayload(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));

/** What `overlay` makes of a picture: red, green, blue of each pixel, 0 to 255. */
function overlaid({ picture, opacity, colormap }, values) {
  const below = Uint8ClampedArray.from(picture);
  dim(below, opacity);
  const above = new Uint32Array(values.length);
  colorize(values, lookup(colorTable(payload.header, colormap), opacity, true), above);
  const colors = new Uint8ClampedArray(above.buffer);
  return [...below].map((byte, at) => {
    const alpha = colors[at - (at % 4) + 3] / 255;
    return at % 4 === 3 ? 255 : byte + (colors[at] - byte) * alpha;
  });
}

function answer({ state, place, scale, overlay, ranked }) {
  const choice = fit(readState(state), payload.header);
  if (ranked) return rankAt(payload, wordMaps(payload, choice.item), choice.item, ranked);
  if (choice.word !== null) {
    const { values, labels } = wordMaps(payload, choice.item);
    return { values: values.map((map) => [...map]), labels };
  }
  const maps = place
    ? pointMap(payload, choice, place.side, place.place)
    : selectMaps(payload, choice);
  if (!maps) return null;
  const painting = scale ?? choice.scale;
  const complement = painting === "paper, complement";
  const ranges = maps.values.map((_, index) => rangeOf(maps, index, painting));
  const name = choice.direction === "r2g" ? "mask" : "reference_mask.0";
  const table = payload.tables.get(name);
  const mask = table && { data: table.data, height: table.shape[1], width: table.shape[2] };
  const found = {
    values: maps.values.map((map) => [...map]),
    labels: maps.labels,
    unit: maps.unit,
    ranges,
    imacs:
      mask && !place ? maps.values.map((map) => imacs(map, maps.grid, mask, complement)) : null,
  };
  if (overlay) {
    const layer = { values: maps.values[0], grid: maps.grid, range: ranges[0], scale: painting };
    const painted = paintedValues(layer, overlay.height, overlay.width);
    found.painted = [...painted];
    found.overlay = overlaid(overlay, painted);
  }
  return found;
}

const asked = JSON.parse(readFileSync(questions, "utf-8"));
process.stdout.write(JSON.stringify(asked.map(answer)));
