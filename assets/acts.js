/* Small things that HTML parts ask for: copy a text, show or hide a part, tell the server which part was pressed. */
(() => {
  const copy = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = Object.assign(document.createElement("textarea"), { value: text });  // http on a local network
    area.style.cssText = "position:fixed;opacity:0";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  const copied = (button) => {
    if (!button.dataset.copied || button.dataset.was) return;
    button.dataset.was = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = button.dataset.was; delete button.dataset.was; }, 1600);
  };
  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest?.(selector);
    let button;
    if ((button = at("[data-copy], [data-copy-address]"))) {
      copy(button.dataset.copy ?? location.href).then(() => copied(button), () => {});
    } else if ((button = at("[data-toggle]"))) {
      const part = document.getElementById(button.dataset.toggle);
      if (part) part.hidden = !part.hidden;
    } else if ((button = at("[data-act]"))) {
      window.naranhiAct = button.dataset.act;
      document.getElementById(button.dataset.to)?.click();
    }
  });
})();
