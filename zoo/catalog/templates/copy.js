// Makes the copy buttons copy the lines next to them, and writes the site's own address into them.
"use strict";
{
  // Of an address, what a shell or a quoted string would read otherwise is escaped.
  const address = (part) => new URL(part.dataset.root || ".", location.href.split(/[?#]/)[0]).href
    .replace(/\/$/, "").replace(/[!$&'()*;]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`);
  for (const part of document.querySelectorAll("[data-slot=site]")) part.textContent = address(part);
  if (location.protocol === "file:") {
    for (const note of document.querySelectorAll("[data-from-folder]")) note.hidden = false;
  } else {
    for (const part of document.querySelectorAll("[data-slot=served]")) part.textContent = part.dataset.served.replace("SITE", address(part));
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
