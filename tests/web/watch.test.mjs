// node --test tests/web
import assert from "node:assert/strict";
import { test } from "node:test";
import { freePlace } from "../../web/js/watch/places.js";
import { referencesOf } from "../../web/js/watch/references.js";
import { decoderOf, given, latentOf, samples } from "../../web/js/watch/samplers.js";
import { innerScope, rootScope, source } from "../../web/js/watch/sources.js";

const BYPASSED = 4;
const NEVER = 2;

/** A graph as LiteGraph has them, of what following wires reads: nodes by name, each
 * [type, inputs {name: [type, from, slot]}, output types, more]. */
function graphOf(table) {
  const graph = { nodes: [], links: new Map(), getLink: (id) => graph.links.get(id) };
  const named = {};
  for (const [name, [type, inputs, outputs, more]] of Object.entries(table)) {
    const node = { id: name, type, title: name, mode: 0, pos: [0, 0], size: [200, 100], ...more };
    node.inputs = Object.entries(inputs).map(([input, [kind]]) => ({ name: input, type: kind }));
    node.outputs = outputs.map((kind) => ({ name: kind, type: kind, links: [] }));
    named[name] = node;
    graph.nodes.push(node);
  }
  for (const [name, [, inputs]] of Object.entries(table)) {
    for (const [index, [type, from, slot = 0]] of Object.values(inputs).entries()) {
      if (from === undefined) continue;
      const id = graph.links.size + 1;
      const ends = { origin_id: from, origin_slot: slot, target_id: name, target_slot: index };
      graph.links.set(id, { id, type, ...ends });
      named[name].inputs[index].link = id;
    }
  }
  graph.getNodeById = (id) => named[id];
  return graph;
}

const loaded = {
  picture: ["LoadImage", {}, ["IMAGE", "MASK"]],
  other: ["LoadImage", {}, ["IMAGE", "MASK"]],
  model: ["UNETLoader", {}, ["MODEL"]],
  text: ["CLIPTextEncode", {}, ["CONDITIONING"]],
  vision: ["CLIPVisionEncode", { image: ["IMAGE", "picture"] }, ["CLIP_VISION_OUTPUT"]],
  encode: ["VAEEncode", { pixels: ["IMAGE", "other"], vae: ["VAE"] }, ["LATENT"]],
  reference: [
    "ReferenceLatent",
    { conditioning: ["CONDITIONING", "text"], latent: ["LATENT", "encode"] },
    ["CONDITIONING"],
  ],
};

const sampler = (positive, latent, model = "model") => [
  "KSampler",
  {
    model: ["MODEL", model],
    positive: ["CONDITIONING", positive],
    negative: ["CONDITIONING", "text"],
    latent_image: ["LATENT", latent],
  },
  ["LATENT"],
];

function found(table, name = "sampler") {
  const scope = rootScope(graphOf(table));
  return referencesOf(given({ scope, node: scope.graph.getNodeById(name) }));
}

const names = ({ references }) => references.map(({ picture }) => picture?.node.id ?? null);

test("a node samples if it has a model or guider and a latent in, and a latent out", () => {
  const { nodes } = graphOf({
    sampler: sampler("text", "encode"),
    guided: ["SamplerCustomAdvanced", { guider: ["GUIDER"], latent_image: ["LATENT"] }, ["LATENT"]],
    // Gives a latent, but is given none: WanInfiniteTalkToVideo.
    talk: ["Talk", { model: ["MODEL"], positive: ["CONDITIONING"] }, ["MODEL", "LATENT"]],
    noise: ["AddNoise", { model: ["MODEL"], latent_image: ["LATENT"] }, ["LATENT"]],
  });
  assert.deepEqual(nodes.map(samples), [true, true, false, false]);
});

test("references stand in the model's order: styles, tokens, latents, adapters", () => {
  const vision = { clip_vision_output: ["CLIP_VISION_OUTPUT", "vision"] };
  const table = {
    ...loaded,
    third: ["LoadImage", {}, ["IMAGE"]],
    "third seen": ["CLIPVisionEncode", { image: ["IMAGE", "third"] }, ["CLIP_VISION_OUTPUT"]],
    adapted: [
      "IPAdapterAdvanced",
      { model: ["MODEL", "model"], image: ["IMAGE", "picture"] },
      ["MODEL"],
    ],
    "style 1": ["USOStyleReference", { model: ["MODEL", "adapted"], ...vision }, ["MODEL"]],
    "style 2": [
      "USOStyleReference",
      { model: ["MODEL", "style 1"], clip_vision_output: ["CLIP_VISION_OUTPUT", "third seen"] },
      ["MODEL"],
    ],
    redux: [
      "StyleModelApply",
      { conditioning: ["CONDITIONING", "reference"], style_model: ["STYLE_MODEL"], ...vision },
      ["CONDITIONING"],
    ],
    sampler: sampler("redux", "encode", "style 2"),
  };
  // The second style puts its tokens before those of the first.
  assert.deepEqual(names(found(table)), ["third", "picture", "picture", "other", "picture"]);
});

test("Wan's CLIP tokens count only if no picture is among the video's tokens", () => {
  const clip = {
    positive: ["CONDITIONING", "text"],
    clip_vision_output: ["CLIP_VISION_OUTPUT", "vision"],
    start_image: ["IMAGE", "picture"],
  };
  const video = ["WanImageToVideo", clip, ["CONDITIONING", "CONDITIONING", "LATENT"]];
  const alone = found({ ...loaded, video, sampler: sampler("video", "encode") });
  assert.deepEqual(names(alone), ["picture"]);
  assert.deepEqual(alone.beside, ["start_image of video"]);
  const above = { ...clip, positive: ["CONDITIONING", "reference"] };
  const both = {
    ...loaded,
    video: [video[0], above, video[2]],
    sampler: sampler("video", "encode"),
  };
  assert.deepEqual(names(found(both)), ["other"]);
});

test("a latent that is of no known picture is a reference without one", () => {
  const table = {
    ...loaded,
    encode: ["EmptyLatentImage", {}, ["LATENT"]],
    sampler: sampler("reference", "encode"),
  };
  assert.deepEqual(names(found(table)), [null]);
});

test("marks stand behind the style, or where its tokens join those of another text", () => {
  const style = { conditioning: ["CONDITIONING", "text"], style_model: ["STYLE_MODEL", "styles"] };
  const table = {
    ...loaded,
    styles: ["StyleModelLoader", {}, ["STYLE_MODEL"]],
    redux: [
      "StyleModelApply",
      { ...style, clip_vision_output: ["CLIP_VISION_OUTPUT", "vision"] },
      ["CONDITIONING"],
    ],
    joined: [
      "ConditioningConcat",
      { conditioning_to: ["CONDITIONING", "text"], conditioning_from: ["CONDITIONING", "redux"] },
      ["CONDITIONING"],
    ],
    sampler: sampler("redux", "encode"),
    "second sampler": sampler("joined", "encode"),
  };
  assert.equal(found(table).references[0].mark.wire.link.origin_id, "redux");
  assert.equal(found(table, "second sampler").references[0].mark.wire.link.origin_id, "joined");
  const marked = {
    ...table,
    mark: [
      "I2AM_MarkRedux",
      {
        conditioning: ["CONDITIONING", "redux"],
        clip_vision_output: ["CLIP_VISION_OUTPUT", "vision"],
      },
      ["CONDITIONING"],
    ],
    sampler: sampler("mark", "encode"),
  };
  assert.equal(found(marked).references[0].mark, null);
});

test("a bypassed node hands on the input of the type that is wanted, a muted one nothing", () => {
  const scale = (mode) => ({
    ...loaded,
    scale: [
      "Scale",
      { mask: ["MASK", "picture", 1], image: ["IMAGE", "other"] },
      ["IMAGE"],
      { mode },
    ],
    show: ["PreviewImage", { images: ["IMAGE", "scale"] }, []],
  });
  const from = (table) => {
    const scope = rootScope(graphOf(table));
    return source(scope, scope.graph.getNodeById("show"), 0)?.node.id;
  };
  assert.equal(from(scale(0)), "scale");
  assert.equal(from(scale(BYPASSED)), "other");
  assert.equal(from(scale(NEVER)), undefined);
});

test("across the border of a subgraph, seen from where it stands", () => {
  const root = graphOf({
    ...loaded,
    one: ["sub", { image: ["IMAGE", "picture"] }, ["IMAGE"]],
    two: ["sub", { image: ["IMAGE", "other"] }, ["IMAGE"]],
    show: ["PreviewImage", { images: ["IMAGE", "two"] }, []],
  });
  const inner = graphOf({ invert: ["ImageInvert", { image: ["IMAGE", "-10"] }, ["IMAGE"]] });
  const slot = { name: "image" };
  inner.inputNode = { id: -10 };
  inner.outputNode = { id: -20 };
  inner.inputs = [slot];
  inner.links.set(9, { id: 9, type: "IMAGE", origin_id: "invert", origin_slot: 0, target_id: -20 });
  inner.outputs = [{ linkIds: [9] }];
  for (const name of ["one", "two"]) {
    const node = root.getNodeById(name);
    Object.assign(node, { isSubgraphNode: () => true, subgraph: inner });
    node.inputs[0]._subgraphSlot = slot;
  }
  const scope = rootScope(root);
  const invert = inner.getNodeById("invert");
  const above = (name) => source(innerScope(scope, root.getNodeById(name)), invert, 0).node.id;
  assert.equal(above("one"), "picture");
  assert.equal(above("two"), "other");
  const shown = source(scope, root.getNodeById("show"), 0);
  assert.equal(shown.node, invert);
  assert.equal(shown.scope.holder.id, "two");
});

test("the decoder of a sampler is its own, or that of further samplers alone", () => {
  const decode = (from) => ["VAEDecode", { samples: ["LATENT", from], vae: ["VAE"] }, ["IMAGE"]];
  const of = (table) => {
    const scope = rootScope(graphOf(table));
    return decoderOf({ scope, node: scope.graph.getNodeById("sampler") }, scope)?.node.id;
  };
  const one = { ...loaded, sampler: sampler("reference", "encode") };
  const two = { ...one, second: sampler("reference", "sampler") };
  assert.equal(of(one), undefined);
  assert.equal(of({ ...two, late: decode("second"), own: decode("sampler") }), "own");
  assert.equal(of({ ...two, late: decode("second") }), "late");
  const cropped = ["LatentCrop", { samples: ["LATENT", "sampler"] }, ["LATENT"]];
  const apart = { ...one, cropped, second: sampler("reference", "cropped") };
  assert.equal(of({ ...apart, late: decode("second") }), undefined);
});

test("the latent tells the mask, and models that cannot be watched", () => {
  const of = (table) => {
    const scope = rootScope(graphOf(table));
    return latentOf({ scope, node: scope.graph.getNodeById("sampler") });
  };
  const mask = { samples: ["LATENT", "encode"], mask: ["MASK", "picture", 1] };
  const masked = of({
    ...loaded,
    masked: ["SetLatentNoiseMask", mask, ["LATENT"]],
    sampler: sampler("reference", "masked"),
  });
  assert.deepEqual([masked.mask.node.id, masked.mask.slot, masked.unread], ["picture", 1, null]);
  const sound = of({
    ...loaded,
    both: ["LTXVConcatAVLatent", { video_latent: ["LATENT", "encode"] }, ["LATENT"]],
    sampler: sampler("reference", "both"),
  });
  assert.match(sound.unread, /video and sound/);
});

test("a place covers no node, and is the wish if that is free", () => {
  const graph = { nodes: [{ pos: [0, 0], size: [400, 300], flags: {} }] };
  assert.deepEqual(freePlace(graph, [500, 0], [100, 100]), [500, 0]);
  const [x, y] = freePlace(graph, [100, 100], [100, 100]);
  assert.ok(x >= 400 || x + 100 <= 0 || y - 30 >= 300 || y + 100 <= -30, `${x}, ${y}`);
});
