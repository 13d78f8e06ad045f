// Buttons that copy the lines beside them.
"use strict";
{
  const said = document.createElement("span");
  said.className = "skip";
  said.setAttribute("role", "status");
  document.body.append(said);

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
      return byHand(code); // without HTTPS, or without leave
    }
  };
  for (const button of document.querySelectorAll(".copier")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.parentElement.querySelector("code"));
      button.textContent = done ? "Copied" : "Selected";
      said.textContent = done ? "Copied" : "Selected; copy it with the keyboard";
      setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
    });
  }
}
