// Fills the commands of a model's page for the GPU and precision that a reader picks. The choice is
// kept in the URL, to be shared, and in the browser, for the pages of other models.
"use strict";
{
  const $ = (id) => document.getElementById(id);
  const box = $("use");
  const { options, start, root } = JSON.parse($("use-data").textContent);
  const gpu = $("use-gpu"), precision = $("use-precision");
  const compact = (text) => text.toLowerCase().replace(/[\s_-]/g, "");
  const store = { get: () => { try { return localStorage.getItem("gpu"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("gpu", value); } catch { /* blocked: the URL has it */ } } };
  const pick = (value) => {
    const wanted = [...gpu.options].find((option) => compact(option.value) === compact(value ?? ""));
    if (wanted) wanted.selected = true;
    return Boolean(wanted);
  };
  const put = (name, text) => { for (const part of box.querySelectorAll(`[data-slot="${name}"]`)) part.textContent = text; };

  const show = () => {
    const chosen = gpu.selectedOptions[0];
    const own = options.filter((option) => option.arch === chosen.dataset.arch);
    for (const item of precision.options) item.disabled = Boolean(item.value) && !own.some((option) => option.precision === item.value);
    if (precision.selectedOptions[0].disabled) precision.value = "";
    const option = own.find((one) => !precision.value || one.precision === precision.value) ?? options[start];
    const missing = !own.length;
    $("use-none").hidden = !missing;
    $("use-none").textContent = missing ? `No engine of this model for ${chosen.textContent} yet; the commands below are for ${options[start].arch === "cpu" ? "the CPU" : options[start].arch}.` : "";
    const badge = $("use-badge");
    [badge.textContent] = option.badge;
    badge.className = `badge ${option.badge[1]}`;
    $("use-engine").textContent = option.words;
    $("use-engine").setAttribute("href", root + option.page);
    put("extra", option.extra);
    put("packages", option.packages);
    put("target", option.target);
    put("flags", option.flags && ` ${option.flags}`);
    put("literal", JSON.stringify(option.target));
    put("arguments", option.arguments);
  };
  const keep = () => {
    const query = new URLSearchParams(location.search);
    query.set("gpu", gpu.value);
    if (precision.value) query.set("precision", precision.value); else query.delete("precision");
    try { history.replaceState(null, "", `?${query}${location.hash}`); } catch { /* from a folder */ }
    store.set(gpu.value);
  };
  const query = new URLSearchParams(location.search);
  if (!pick(query.get("gpu")) && !pick(store.get())) pick(options[start].arch);
  precision.value = query.get("precision") ?? "";
  if (precision.selectedIndex === -1) precision.value = "";
  show();
  for (const select of [gpu, precision]) select.addEventListener("change", () => { show(); keep(); });
}
