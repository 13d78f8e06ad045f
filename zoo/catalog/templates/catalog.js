// Filters, sorts and searches the cards; keeps what is chosen in the address, so that it can be
// shared. Without it the page shows the first rows of each card, and links to all of them.
"use strict";
{
  const $ = (id) => document.getElementById(id);
  const form = $("filters");
  const names = ["q", "gpu", "trt", "precision", "family", "features", "size", "status", "sort"];
  const cards = [...document.querySelectorAll(".card")].map((element) => ({
    element,
    list: element.querySelector(".rows"),
    more: element.querySelector(".more"),
    first: [...element.querySelectorAll(".row")],
    text: [...element.querySelectorAll("h2, p:not(.more)")].map((one) => one.textContent).join(" ").toLowerCase(),
    page: element.querySelector("h2 a").getAttribute("href"),
  }));
  const archText = {};
  const known = {}; // architecture to the GPUs that people know
  const products = new Map(); // "rtx3080" to the architectures that a product of that name has
  const compact = (text) => text.toLowerCase().replace(/[\s-]/g, "");
  for (const option of $("gpu").querySelectorAll("option[data-arch]")) {
    const arch = option.dataset.arch;
    products.set(compact(option.textContent), new Set([...(products.get(compact(option.textContent)) ?? []), arch]));
    known[arch] = option.parentElement.dataset.known;
    archText[arch] = `${archText[arch] ?? option.parentElement.label} ${option.textContent}`.toLowerCase();
  }

  // The words for numbers are those of zoo/catalog/facts.py.
  const number = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const rate = (value) => number(value, value >= 100 ? 0 : 1);

  const unpack = (data) => data.rows.map((row) => {
    const [card, archs, precision, line, runtime, badges, page, size, cosine, speed, batch, note] = row;
    const word = (index) => data.words[index];
    const one = {
      card, archs: word(archs).split(" "), precision: word(precision), line: word(line), runtime: word(runtime),
      badges: badges.map((index) => data.badges[index]),
      page: page ? `engines/${data.models[card][0]}/${page}.html` : cards[card].page,
      features: data.models[card][1], family: data.models[card][2], size, cosine, speed, batch, note: note ?? "",
    };
    one.status = one.badges[0][0];
    one.text = [word(archs), one.precision, one.runtime, one.line, one.note, ...one.badges.map((badge) => badge[0]),
      ...one.archs.map((arch) => archText[arch] ?? "")].join(" ").toLowerCase();
    return one;
  });

  const element = (one) => {
    const made = $("row").content.firstElementChild.cloneNode(true);
    const put = (selector, text) => { made.querySelector(selector).textContent = text; };
    made.querySelector(".name").setAttribute("href", one.page);
    put("strong", one.archs.join(" "));
    put(".precision", one.precision);
    put(".what small", one.archs.map((arch) => known[arch]).filter(Boolean).join(" · "));
    put(".runtime", one.runtime);
    put(".note", one.note);
    if (one.speed) {
      const batch = document.createElement("small");
      batch.textContent = `at batch ${one.batch}`;
      made.querySelector(".rate").append(`${rate(one.speed)} images/s `, batch);
    }
    put(".cosine", one.cosine === null ? "" : `cosine ${one.cosine.toFixed(6)}`);
    put(".size", one.size === null ? "" : `${number(one.size, 1)} MiB`);
    one.badges.forEach(([text, tone, why], index) => {
      const badge = document.createElement("span");
      badge.className = `badge ${tone}`;
      badge.textContent = text;
      if (why) badge.title = why;
      made.querySelector(".badges").append(index ? " " : "", badge);
    });
    return made;
  };

  const chosen = () => Object.fromEntries(names.map((name) => [name, $(name).value.trim()]));
  const arch = () => $("gpu").selectedOptions[0]?.dataset.arch ?? "";
  const order = {
    speed: (one, other) => (other.speed ?? -1) - (one.speed ?? -1),
    size: (one, other) => (one.size ?? Infinity) - (other.size ?? Infinity),
    accuracy: (one, other) => (other.cosine ?? -1) - (one.cosine ?? -1),
  };

  const fits = (one, want, gpu, words) =>
    (!gpu || one.archs.includes(gpu)) && (!want.trt || one.line === want.trt)
    && (!want.precision || one.precision.split(" ")[0] === want.precision)
    && (!want.family || one.family === want.family)
    && (!want.features || String(one.features) === want.features)
    && (!want.size || (one.size !== null && one.size <= Number(want.size)))
    && (!want.status || one.status === want.status)
    && words.every((word) => {
      const archs = products.get(compact(word));
      return archs ? one.archs.some((arch) => archs.has(arch)) : one.text.includes(word) || cards[one.card].text.includes(word);
    });

  // What a name on a box or of nvidia-smi has beside the product: "NVIDIA A100-SXM4-80GB" is an A100.
  const extra = /\b(nvidia|geforce|tesla|super|laptop|gpu|generation|max-?q|(workstation|server) edition|pcie|nvl|sxm\d?|hbm\d?e?|\d+ ?gb)\b/g;
  const plain = (text) => text.toLowerCase().replace(extra, " ")
    .replace(/\bsm[ _-]?(\d+)/g, "sm$1").replace(/\b(rtx|gtx)[ _-]?(?=[a-z]?\d)/g, "$1 ");
  // Words of a search, with the name of a product in one piece: "rtx 3080" is not "rtx" and "3080".
  const split = (text) => (plain(text).match(/(?:rtx pro|rtx|gtx|quadro rtx) [a-z]?\d+(?: (?:ti|ada|blackwell))?|\S+/g) ?? [])
    .map((word) => word.replace(/^-+|-+$/g, "")).filter(Boolean);
  const slug = (text) => text.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

  const start = (data) => {
    const rows = unpack(data);
    const parent = $("cards");
    const all = $("count").textContent;

    const restore = () => {
      for (const card of cards) {
        card.element.hidden = false;
        card.list.replaceChildren(...card.first);
        if (card.more) card.more.hidden = false;
      }
      parent.append(...cards.map((card) => card.element));
      $("none").hidden = true;
      $("reset").hidden = true;
      $("count").textContent = all;
    };

    const explain = (want, gpu) => {
      const option = $("gpu").selectedOptions[0];
      const about = gpu && !rows.some((one) => one.archs.includes(gpu));
      $("none-text").textContent = unknown.length ? `The link asks for ${unknown.join(", ")}, which this page does not know. Clear the filters, or build it from a checkout:` : about
        ? `Nothing is published for ${option.textContent} (${gpu}) yet. From a checkout you can build it:`
        : `${want.q ? "Clear a filter or try another word; a GPU that is not in the list is served by no runtime here." : "Clear a filter."} Or build it from a checkout:`;
      const precision = want.precision ? ` PRECISION=${want.precision}` : "";
      const line = want.trt && !want.trt.startsWith("ort") ? ` TRT=${want.trt.replace(/^trt/, "")}` : "";
      $("none-command").textContent = `make zoo${gpu ? ` GPU=${gpu}` : ""}${line}${precision}`;
    };

    let unknown = []; // of the link: choices that there are not
    const show = () => {
      const want = chosen();
      const gpu = arch();
      if (!unknown.length && !names.some((name) => want[name])) return restore();
      const words = split(want.q);
      const groups = cards.map(() => []);
      for (const one of rows) if (!unknown.length && fits(one, want, gpu, words)) groups[one.card].push(one);
      const by = order[want.sort];
      if (by) groups.forEach((group) => group.sort(by));
      const places = cards.map((_, index) => index);
      if (by) places.sort((a, b) => (groups[a].length && groups[b].length ? by(groups[a][0], groups[b][0]) : groups[b].length - groups[a].length));
      const pages = new Set();
      let models = 0;
      for (const [index, card] of cards.entries()) {
        const group = groups[index];
        card.element.hidden = !group.length;
        card.list.replaceChildren(...group.map(element));
        if (card.more) card.more.hidden = true;
        models += group.some((one) => !one.note) ? 1 : 0;
        for (const one of group) if (!one.note) pages.add(one.page);
      }
      parent.append(...places.map((index) => cards[index].element));
      const any = groups.some((group) => group.length);
      $("none").hidden = any;
      if (!any) explain(want, gpu);
      $("reset").hidden = false;
      $("count").textContent = `${pages.size} engine${pages.size === 1 ? "" : "s"} of ${models} model${models === 1 ? "" : "s"}`;
    };

    const keep = () => {
      const query = new URLSearchParams(Object.entries(chosen()).filter(([, value]) => value)).toString();
      history.replaceState(null, "", query ? `?${query}` : location.pathname);
    };
    const read = () => {
      const query = new URLSearchParams(location.search);
      unknown = [];
      for (const name of names) {
        const value = query.get(name) ?? "";
        const tries = [value, value.toLowerCase(), slug(value.toLowerCase()), slug(plain(value))];
        for (const one of tries) {
          $(name).value = one;
          if ($(name).selectedIndex !== -1) break;
        }
        if ($(name).selectedIndex === -1) {
          $(name).value = "";
          unknown.push(`${name} "${value}"`);
        }
      }
      show();
    };
    form.addEventListener("input", () => { unknown = []; show(); keep(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    $("reset").addEventListener("click", () => { unknown = []; form.reset(); for (const name of names) $(name).value = ""; show(); keep(); $("q").focus(); });
    addEventListener("popstate", read);
    read();
  };

  const block = $("data");
  if (block.dataset.file) {
    fetch(block.dataset.file).then((answer) => answer.json()).then(start).catch(() => {
      form.hidden = true;
      $("count").textContent += ". Filters need a web server here: make serve starts one.";
    });
  } else {
    start(JSON.parse(block.textContent));
  }
}
