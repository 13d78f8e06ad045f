// Ranks models by a search: what a reader names comes first. The page's script filters with it.
"use strict";
const Search = (() => {
  // What nvidia-smi and boxes print around a product's name: "NVIDIA A100-SXM4-80GB" is an A100.
  const extra = /\b(nvidia|geforce|tesla|super|laptop|gpu|generation|max-?q|(workstation|server) edition|pcie|nvl|sxm\d?|hbm\d?e?|\d+ ?gb)\b/g;
  // An address or id of the hub names the weights: hf.co/timm/resnet50.a1_in1k.
  const hub = /(?:https?:\/\/)?(?:www\.)?(?:huggingface\.co|hf\.co)\/|\btimm[/ ]/g;
  // Words that say what kind of thing a name is, as in "MIT licence" or "384 px", and that join names.
  const kind = /^(licen[cs]e[sd]?|px|pixels?|features?|models?|engines?|backbones?|precisions?|runtimes?|series)$/;
  const joint = /^(for|on|with|and|in)$/;
  const plain = (text) => text.toLowerCase().replace(hub, "").replace(extra, " ")
    .replace(/\b(b?)float(16|32)\b/g, (_, b, bits) => (b ? `bf${bits}` : `fp${bits}`)) // PyTorch's names
    .replace(/(?<=\d),(?=\d{3}\b)/g, "") // 25,088 is 25088
    .replace(/\bsm[ _-]?(\d+)/g, "sm$1").replace(/\b(rtx|gtx)[ _-]?(?=[a-z]?\d+\b(?!\.\d))/g, "$1 "); // rtx1.7 is a runtime
  // "ResNet-50", "ResNet 50" and "resnet50" are the same.
  const compact = (text) => text.toLowerCase().replace(/[\s_.-]+/g, "");
  const LONGEST = 4; // words of a name, as in "RTX PRO 6000 Blackwell"
  // Splits a search into words but keeps names of GPUs, runtimes and precisions whole, however they
  // are written: "rtx 3080" is not "rtx" and "3080", and "ONNX Runtime", "onnxruntime" are one name.
  const split = (text, names) => {
    const words = (plain(text).match(/(?:rtx pro|rtx|gtx|quadro rtx) [a-z]?\d+\b(?!\.\d)(?: (?:ti|ada|blackwell))?|\S+/g) ?? [])
      .map((word) => word.replace(/^-+|-+$/g, "")).filter((word) => word && !joint.test(word));
    const found = [];
    for (let start = 0; start < words.length;) {
      const length = [...Array(LONGEST).keys()].map((less) => LONGEST - less)
        .find((count) => start + count <= words.length && names.has(compact(words.slice(start, start + count).join("")))) ?? 1;
      found.push(words.slice(start, start + length).join(" "));
      start += length;
    }
    return found.filter((word) => !kind.test(word));
  };
  const wordsOf = (text) => text.toLowerCase().split(/[^\p{L}\p{N}.+]+/u).filter(Boolean);

  // A field of a model: words that a search may begin, and the whole without separators.
  const field = (text) => ({ words: wordsOf(text), whole: compact(text) });
  // A number is found whole: 50 does not begin 5090.
  const starts = (entry, word) => (/^\d+$/.test(word) ? entry.words.includes(word) : entry.words.some((own) => own.startsWith(word)));

  // A model as the search sees it.
  const entry = ({ id, title, timm, family, licence, features, pixels, text }) => ({
    names: [field(title), field(id), field(timm)], family: field(family), licence: field(licence),
    numbers: [String(features), String(pixels)], text: field(text),
  });
  const holds = (model, word) => {
    const whole = compact(word);
    return model.numbers.includes(word)
      || model.names.some((name) => starts(name, word) || (/\D/.test(whole) && name.whole.includes(whole))
        || (/\D$/.test(name.whole.slice(0, -whole.length)) && name.whole.endsWith(whole))) // the 50 of resnet50
      || [model.family, model.licence, model.text].some((part) => starts(part, word));
  };
  const NAMED = 60; // a search that is the name, width, family or licence of a model
  const TITLED = 80; // one that is or begins a name, or is a width: it means these models alone
  // How well a model fits the words that name no engine, no GPU and no precision; 0 if it does not.
  const rank = (model, words) => {
    if (!words.length) return 1;
    const whole = compact(words.join(""));
    const names = model.names.map((name) => name.whole);
    if (names.includes(whole)) return 100;
    if (words.length === 1 && model.numbers[0] === whole) return 90;
    if (names.slice(0, 2).some((name) => name.startsWith(whole))) return TITLED + 5; // before timm's names
    if (names.some((name) => name.startsWith(whole))) return TITLED;
    if (names.some((name) => name.includes(whole) && /\D/.test(whole))) return 70;
    if (model.family.whole === whole || model.licence.whole === whole) return NAMED;
    if (!words.every((word) => holds(model, word))) return 0;
    return words.every((word) => model.names.some((name) => starts(name, word))) ? 50 : 10;
  };
  return { NAMED, TITLED, plain, split, compact, entry, rank, wordsOf };
})();
