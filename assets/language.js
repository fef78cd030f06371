// Korean at the root, English at /en. The browser's language decides the first time, the switch from then on.
(() => {
  if (/\/rate\/?$/.test(location.pathname)) return;  // a rater's page speaks its study's language
  const kept = () => { try { return localStorage.getItem("naranhi-language"); } catch { return null; } };
  const english = /\/en\/?$/.test(location.pathname);
  const wanted = kept() || ((navigator.language || "ko").toLowerCase().startsWith("ko") ? "ko" : "en");
  const go = (language) => {
    const root = location.pathname.replace(/\/en\/?$/, "/").replace(/\/+$/, "");
    location.replace(root + (language === "en" ? "/en" : "/") + location.search);
  };
  document.documentElement.lang = english ? "en" : "ko";
  if (!english && wanted === "en") go("en");
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[data-lang]");
    if (!link) return;
    event.preventDefault();
    try { localStorage.setItem("naranhi-language", link.dataset.lang); } catch { /* private mode: the page still switches */ }
    if (link.dataset.lang !== (english ? "en" : "ko")) go(link.dataset.lang);
  });
})();
