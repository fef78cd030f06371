/* Voting by keyboard: 1-4 choose, Enter confirms. Only while the vote bar is in view of a person who is not typing. */
(() => {
  const shown = (element) => element && element.getClientRects().length > 0;
  const typing = (element) => {
    if (!element || element === document.body) return false;
    if (element.isContentEditable || element.tagName === "TEXTAREA" || element.tagName === "SELECT") return true;
    return element.tagName === "INPUT" && !["radio", "checkbox", "button"].includes(element.type);
  };
  const acting = (element) => element?.closest?.("button, a, summary, [role=button], [role=tab], [role=option]");

  const onKey = (event) => {
    if (event.isComposing || event.keyCode === 229 || event.repeat || event.defaultPrevented) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (typing(event.target) || typing(document.activeElement)) return;
    const bar = document.getElementById("n-votebar");
    if (!shown(bar)) return;
    const choices = [...bar.querySelectorAll("#n-choice input[type=radio]")];
    if (/^[1-4]$/.test(event.key)) {
      event.preventDefault();
      choices[Number(event.key) - 1]?.click();
    } else if (event.key === "Enter" && !acting(event.target)) {
      const confirm = bar.querySelector("#n-confirm");
      if (!shown(confirm) || confirm.disabled || !choices.some((choice) => choice.checked)) return;
      event.preventDefault();
      confirm.click();
    }
  };
  document.addEventListener("keydown", onKey);
})();
