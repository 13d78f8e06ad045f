// Filters, sorts and searches the cards. The choices are kept in the URL, so that it can be shared.
// Without this script the page shows the first rows of each card and a link to all of them.
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
    link: element.querySelector("h2 a"),
    page: element.querySelector("h2 a").getAttribute("href"),
    text: element.querySelector(".about").textContent,
  }));
  const archText = {};
  const known = {}; // architecture to its best-known GPUs
  const products = new Map(); // product, as "rtx3080", to the architectures that it comes with
  const { compact } = Search;
  const addProduct = (name, arch) => products.set(compact(name), new Set([...(products.get(compact(name)) ?? []), arch]));
  for (const option of $("gpu").querySelectorAll("option[data-arch]")) {
    const arch = option.dataset.arch;
    if (option.value !== arch) addProduct(option.textContent, arch);
    known[arch] = option.parentElement.dataset.known;
    archText[arch] = `${archText[arch] ?? option.parentElement.label} ${option.textContent}`.toLowerCase();
  }
  for (const [arch, names] of Object.entries(known)) { // series: RTX 30
    for (const name of names.split(", ").filter(Boolean)) addProduct(name, arch);
  }

  // Formats numbers like zoo/catalog/facts.py.
  const number = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const rate = (value) => number(value, value >= 100 ? 0 : 1);

  const unpack = (data) => data.rows.map((fields) => {
    const [card, archs, precision, line, runtime, badges, page, size, cosine, speed, batch, note] = fields;
    const word = (index) => data.words[index];
    const row = {
      card, archs: word(archs).split(" "), precision: word(precision), line: word(line), runtime: word(runtime),
      badges: badges.map((index) => data.badges[index]),
      page: page ? `engines/${data.models[card][0]}/${page}.html` : cards[card].page,
      features: data.models[card][1], family: data.models[card][2], size, cosine, speed, batch, note: note ?? "",
    };
    row.status = row.badges[0][0];
    row.text = [word(archs), row.precision, row.runtime, row.line, row.note, ...row.badges.map((badge) => badge[0]),
      ...row.archs.map((arch) => archText[arch] ?? "")].join(" ").toLowerCase();
    row.words = Search.wordsOf(row.text);
    row.names = new Set([...row.archs, row.precision, row.precision.split(" ")[0], row.line, row.line.replace(/[\d.]+$/, ""),
      row.runtime.replace(/ [\d.]+$/, ""), row.runtime, row.status].map(compact));
    return row;
  });

  const element = (row) => {
    const item = $("row").content.firstElementChild.cloneNode(true);
    const put = (selector, text) => { item.querySelector(selector).textContent = text; };
    item.querySelector(".name").setAttribute("href", row.page);
    put("strong", row.archs.join(" "));
    put(".precision", row.precision);
    put(".what small", row.archs.map((arch) => known[arch]).filter(Boolean).join(" · "));
    put(".runtime", row.runtime);
    put(".note", row.note);
    if (row.speed) {
      const batch = document.createElement("small");
      batch.textContent = `at batch ${row.batch}`;
      item.querySelector(".rate").append(`${rate(row.speed)} images/s `, batch);
    }
    put(".cosine", row.cosine === null ? "" : `cosine ${row.cosine.toFixed(6)}`);
    put(".size", row.size === null ? "" : `${number(row.size, 1)} MiB`);
    row.badges.forEach(([text, tone, why], index) => {
      const badge = document.createElement("span");
      badge.className = `badge ${tone}`;
      badge.textContent = text;
      if (why) badge.title = why;
      item.querySelector(".badges").append(index ? " " : "", badge);
    });
    return item;
  };

  const CROWDED = 200; // rows above which a card shows only its first: thousands take seconds
  const FEWEST = 5; // rows that it shows then, at least
  const rest = cards.map((card) => {
    const line = document.createElement("p");
    const button = document.createElement("button");
    line.className = "more";
    button.type = "button";
    button.className = "plain";
    line.append(button);
    card.list.after(line);
    line.hidden = true;
    return { line, button };
  });
  // Fills a card: with some of its rows, and a button that shows the others.
  const fill = (index, group, limit) => {
    const { list } = cards[index];
    const { line, button } = rest[index];
    const some = group.length > limit ? group.slice(0, limit) : group;
    list.replaceChildren(...some.map(element));
    line.hidden = some.length === group.length;
    button.textContent = `Show all ${number(group.length, 0)} that match`;
    button.onclick = () => {
      line.hidden = true;
      list.append(...group.slice(limit).map(element));
      list.children[limit].querySelector("a").focus();
    };
  };

  const chosen = () => Object.fromEntries(names.map((name) => [name, $(name).value.trim()]));
  const arch = () => $("gpu").selectedOptions[0]?.dataset.arch ?? "";
  const order = {
    speed: (row, other) => (other.speed ?? -1) - (row.speed ?? -1),
    size: (row, other) => (row.size ?? Infinity) - (other.size ?? Infinity),
    accuracy: (row, other) => (other.cosine ?? -1) - (row.cosine ?? -1),
  };

  const fits = (row, want, gpu) =>
    (!gpu || row.archs.includes(gpu)) && (!want.trt || row.line === want.trt)
    && (!want.precision || row.precision.split(" ")[0] === want.precision)
    && (!want.family || row.family === want.family)
    && (!want.features || String(row.features) === want.features)
    && (!want.size || (row.size !== null && row.size <= Number(want.size)))
    && (!want.status || row.status === want.status);

  // The architectures of the products that a word names, or begins to name as "rtx 40" does.
  const asked = new Map();
  const archsOf = (word) => {
    const name = compact(word);
    if (!asked.has(name)) {
      const begun = /^[a-z]+\d/.test(name) ? [...products].filter(([product]) => product.startsWith(name)) : [];
      asked.set(name, products.get(name) ?? (begun.length ? new Set(begun.flatMap(([, archs]) => [...archs])) : undefined));
    }
    return asked.get(name);
  };
  // How well a row has a word, which names a GPU, a precision, a runtime or a state: 2 if it is the
  // name, 1 if it begins a word of it, 0 if the row does not have it. "rtx" is a runtime, and then GPUs.
  const has = (row, word) => {
    if (row.names.has(compact(word))) return 2;
    const archs = archsOf(word);
    if (archs) return row.archs.some((arch) => archs.has(arch)) ? 2 : 0;
    if (/^\d+$/.test(word)) return row.words.some((own) => own === word || own.startsWith(`${word}.`)) ? 1 : 0; // 10 is not 100
    return row.words.some((own) => own.startsWith(word)) ? 1 : 0;
  };
  const slug = (text) => text.replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");

  const start = (data) => {
    const rows = unpack(data);
    const models = cards.map(({ text, link }, index) => {
      const [id, features, family, licence, timm, pixels] = data.models[index];
      return Search.entry({ id, title: link.textContent, timm, family, licence, features, pixels, text });
    });
    const parent = $("cards");
    const all = $("count").textContent;
    const byCard = cards.map((_, index) => rows.filter((row) => row.card === index));
    const spoken = new Set([...products.keys(), ...rows.flatMap((row) => [...row.names])]);

    const restore = () => {
      for (const [index, card] of cards.entries()) {
        card.element.hidden = false;
        rest[index].line.hidden = true;
        card.list.replaceChildren(...card.first);
        card.link.setAttribute("href", card.page);
        if (card.more) card.more.hidden = false;
      }
      parent.append(...cards.map((card) => card.element));
      $("none").hidden = true;
      $("reset").hidden = true;
      $("count").textContent = all;
    };

    const explain = (want, gpu) => {
      const option = $("gpu").selectedOptions[0];
      const absent = gpu && !rows.some((row) => row.archs.includes(gpu));
      $("none-text").textContent = unknown.length ? `The link filters by ${unknown.join(", ")}, which this page does not list. Clear the filters.` : absent
        ? `Nothing is published for ${option.textContent} (${gpu}) yet.`
        : want.q ? "Clear a filter or try other words; GPUs that are not in the list are not supported." : "Clear a filter.";
    };

    // Words of a search: those of GPUs, those that only rows have, as fp16, and those of models.
    const sorted = (words) => {
      const gpus = words.filter((word) => products.has(compact(word)));
      const others = words.filter((word) => !gpus.includes(word));
      const ofRows = others.filter((word) => !/^\d+$/.test(word) && rows.some((row) => has(row, word)));
      return { gpus, others, ofRows, ofModels: others.filter((word) => !ofRows.includes(word)) };
    };
    // How well a model fits a search, and those of its rows that do. What names the model as a whole
    // chooses all of its rows; otherwise each word is in the row, or else in the model.
    const found = (index, { gpus, others, ofRows, ofModels }) => {
      const own = byCard[index].filter((row) => gpus.every((word) => has(row, word)));
      const whole = Search.rank(models[index], others);
      if (whole >= Search.NAMED) return [whole, own];
      const rank = Search.rank(models[index], ofModels);
      const fitting = (row) => ofRows.every((word) => has(row, word));
      if (rank) return [rank, own.filter(fitting)];
      return [1, own.filter((row) => fitting(row) && ofModels.every((word) => has(row, word)))];
    };

    let unknown = []; // choices in the URL that the filters do not offer
    const show = () => {
      const want = chosen();
      const gpu = arch();
      if (!unknown.length && !names.some((name) => want[name])) return restore();
      const words = Search.split(want.q, spoken);
      const parts = sorted(words);
      // A search that names models means them alone, not others that mention them.
      const means = (list) => list.length && models.some((model) => Search.rank(model, list) >= Search.TITLED);
      // "EfficientNet b2" is a model, although a B200 begins like it too.
      if (parts.ofRows.length && means(parts.others)) [parts.ofRows, parts.ofModels] = [[], parts.others];
      const least = means(parts.ofModels) ? Search.TITLED : 0;
      const ranks = cards.map(() => 0);
      const groups = cards.map((_, index) => {
        const [rank, own] = found(index, parts);
        ranks[index] = rank;
        return unknown.length || rank < least ? [] : own.filter((row) => fits(row, want, gpu));
      });
      // Rows that a search names come before those that it only fits: rtx, and then GPUs called RTX.
      // Of a GPU's, those that are verified on it come first; an engine of several GPUs may not be.
      const named = [...parts.gpus, ...parts.ofRows];
      const scores = new Map();
      const score = (row) => {
        if (!scores.has(row)) scores.set(row, named.reduce((sum, word) => sum + has(row, word), row.status === "verified" ? 0.5 : 0));
        return scores.get(row);
      };
      const by = order[want.sort] ?? (named.length || gpu ? (row, other) => score(other) - score(row) : undefined);
      if (by) groups.forEach((group) => group.sort(by));
      const places = cards.map((_, index) => index);
      const byFirst = (a, b) => (groups[a].length && groups[b].length ? by(groups[a][0], groups[b][0]) : groups[b].length - groups[a].length);
      if (order[want.sort]) places.sort(byFirst);
      else if (words.length) places.sort((a, b) => ranks[b] - ranks[a] || (by ? byFirst(a, b) : 0));
      const filled = groups.filter((group) => group.length).length;
      const crowded = groups.reduce((sum, group) => sum + group.length, 0) > CROWDED;
      const limit = crowded ? Math.max(FEWEST, Math.floor(CROWDED / filled)) : Infinity;
      const pages = new Set();
      let count = 0;
      for (const [index, card] of cards.entries()) {
        const group = groups[index];
        card.element.hidden = !group.length;
        fill(index, group, limit);
        if (card.more) card.more.hidden = true;
        count += group.some((row) => !row.note) ? 1 : 0;
        card.link.setAttribute("href", gpu ? `${card.page}?gpu=${encodeURIComponent(want.gpu)}` : card.page);
        for (const row of group) if (!row.note) pages.add(row.page);
      }
      parent.append(...places.map((index) => cards[index].element));
      const any = groups.some((group) => group.length);
      $("none").hidden = any;
      if (!any) explain(want, gpu);
      $("reset").hidden = false;
      $("count").textContent = `${number(pages.size, 0)} engine${pages.size === 1 ? "" : "s"} of ${count} model${count === 1 ? "" : "s"}`;
    };

    const keep = () => {
      const query = new URLSearchParams(Object.entries(chosen()).filter(([, value]) => value)).toString();
      history.replaceState(null, "", query ? `?${query}` : location.pathname);
    };
    const read = () => {
      form.classList.toggle("all", ["trt", "family", "features", "size", "status"].some((name) => new URLSearchParams(location.search).has(name)));
      const query = new URLSearchParams(location.search);
      unknown = [];
      for (const name of names) {
        const value = query.get(name) ?? "";
        const tries = [value, value.toLowerCase(), slug(value.toLowerCase()), slug(Search.plain(value))];
        for (const text of tries) {
          $(name).value = text;
          if ($(name).selectedIndex !== -1) break;
        }
        if ($(name).selectedIndex === -1) {
          $(name).value = "";
          unknown.push(`${name} "${value}"`);
        }
      }
      show();
    };
    $("gpu").addEventListener("change", () => {
      try { localStorage.setItem("gpu", $("gpu").value); } catch { /* blocked: links have it */ }
    });
    form.addEventListener("input", () => { unknown = []; show(); keep(); });
    $("more").addEventListener("click", () => form.classList.add("all"));
    form.addEventListener("submit", (event) => event.preventDefault());
    $("reset").addEventListener("click", () => { unknown = []; form.reset(); for (const name of names) $(name).value = ""; show(); keep(); $("q").focus(); });
    addEventListener("popstate", read);
    read();
  };

  const block = $("data");
  if (block.dataset.file) {
    fetch(block.dataset.file).then((answer) => answer.json()).then(start).catch(() => {
      form.hidden = true;
      $("count").textContent += ". Filtering needs a web server: make serve starts one.";
    });
  } else {
    start(JSON.parse(block.textContent));
  }
}
