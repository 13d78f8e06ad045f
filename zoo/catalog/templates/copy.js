// Makes the copy buttons copy the lines next to them, and writes the site's own address into them.
"use strict";
{
  for (const part of document.querySelectorAll("[data-slot=site]")) {
    const address = new URL(part.dataset.root || ".", location.href.split(/[?#]/)[0]).href;
    part.textContent = address.replace(/\/$/, "").replaceAll("'", "%27");
  }
  const status = document.createElement("span");
  status.className = "skip";
  status.setAttribute("role", "status");
  document.body.append(status);

  const byHand = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  };
  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      return byHand(code); // without HTTPS or permission
    }
  };
  for (const button of document.querySelectorAll(".copier")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.parentElement.querySelector("code"));
      button.textContent = done ? "Copied" : "Selected";
      status.textContent = done ? "Copied" : "Selected; copy with the keyboard";
      setTimeout(() => { button.textContent = "Copy"; status.textContent = ""; }, 2000);
    });
  }
}
