/* The rater's page: what was on screen, the choice before it is sent, one act at a time. Keys are in keys.js. */
(() => {
  if (!/\/rate\/?$/.test(location.pathname)) return;
  const code = () => new URLSearchParams(location.search).get("c") || "";
  const find = (selector) => document.querySelector(`.n-rating ${selector}`);
  const root = () => document.querySelector(".n-rating");
  let pending = { do: "open" }, busy = false, slow = 0, shownAt = 0, seen = new Set(), watcher = null, lastKey = "";

  const marks = () => {
    const found = { left: {}, right: {} };
    for (const radio of document.querySelectorAll(".n-rating-marks input[type=radio]:checked")) {
      found[radio.dataset.place][radio.dataset.key] = Number(radio.value);
    }
    return found;
  };
  const vote = () => ({
    do: "vote", token: root().dataset.token, choice: find("#n-choice input:checked")?.value || "", marks: marks(),
    comment: find(".n-rating-comment textarea")?.value || "", layout: innerWidth <= 700 ? "stacked" : "columns",
    seconds: Math.round((performance.now() - shownAt) / 100) / 10,
  });
  const say = (text) => {
    let place = document.getElementById("n-rating-said");
    if (!place) {
      place = Object.assign(document.createElement("div"), { id: "n-rating-said", className: "n-note warn" });
      place.setAttribute("role", "alert");
    }
    place.textContent = text;
    place.hidden = !text;
    if (text) (find("#n-votebar") || root()).prepend(place);
  };
  const free = () => { busy = false; clearTimeout(slow); root()?.classList.remove("n-busy"); };
  const send = (act) => {
    if (busy) return;
    busy = true;
    pending = act;
    root()?.classList.add("n-busy");
    say("");
    slow = setTimeout(() => { free(); say(root()?.dataset.slow || ""); }, 15000);
    document.querySelector("#n-rate-go, #n-rate-go button")?.click();
  };

  const choosable = () => {
    if (seen.size < 2) return;
    root().classList.add("n-seen");
    const choices = find("#n-choice");
    if (choices) choices.disabled = false;
  };
  /* An answer was on screen when its end has been, above the bar. */
  const watch = (screen) => {
    watcher?.disconnect();
    seen = new Set();
    const bar = find("#n-votebar");
    const margin = `0px 0px -${bar ? bar.offsetHeight : 0}px 0px`;
    watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) seen.add(entry.target.dataset.end);
      choosable();
    }, { rootMargin: margin });
    screen.querySelectorAll("[data-end]").forEach((end) => watcher.observe(end));
  };
  /* Gradio patches the page instead of replacing it, so what the last item left behind is taken away by hand. */
  const blank = (screen) => {
    screen.classList.remove("n-seen", "n-chosen");
    screen.querySelectorAll("input[type=radio]").forEach((radio) => { radio.checked = false; });
    screen.querySelectorAll("textarea").forEach((area) => { area.value = ""; area.style.height = ""; });
    screen.querySelectorAll("#n-choice, #n-confirm").forEach((part) => { part.disabled = true; });
    screen.querySelectorAll("#n-marks, #n-rating-pause, #n-rating-sure").forEach((part) => { part.hidden = true; });
    screen.querySelectorAll("details").forEach((fold) => { fold.open = fold.hasAttribute("data-open"); });
    say("");
  };
  const ready = (screen, key) => {
    lastKey = key;
    document.documentElement.lang = screen.lang;
    blank(screen);
    free();
    scrollTo(0, 0);
    shownAt = performance.now();
    if (screen.dataset.screen === "item") watch(screen);
  };
  const look = () => {
    const screen = root();
    const key = screen && screen.dataset.screen + (screen.dataset.token || "");
    if (screen && key !== lastKey) ready(screen, key);
  };

  document.addEventListener("change", (event) => {
    if (!event.target.closest?.("#n-choice")) return;
    event.target.focus({ preventScroll: true });  // so that Enter confirms, whatever button was pressed before
    const confirm = find("#n-confirm"), more = find("#n-marks");
    if (confirm) confirm.disabled = false;
    root().classList.add("n-chosen");
    if (more?.hidden) {
      more.hidden = false;
      if (more.querySelector("fieldset")) requestAnimationFrame(() => more.scrollIntoView({ block: "nearest", behavior: "smooth" }));
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".n-rating [data-do]");
    if (button && !button.disabled) send(button.dataset.do === "vote" ? vote() : { do: button.dataset.do, token: root().dataset.token || "" });
  });
  document.addEventListener("input", (event) => {
    if (!event.target.closest?.(".n-rating-comment")) return;
    event.target.style.height = "auto";
    event.target.style.height = `${event.target.scrollHeight}px`;
  });
  const changes = { childList: true, subtree: true, attributes: true, attributeFilter: ["data-token", "data-screen"] };
  new MutationObserver(look).observe(document.documentElement, changes);
  window.naranhiRate = {
    take: () => JSON.stringify({ c: code(), ...pending }),
    done: () => { look(); free(); },
  };
})();
