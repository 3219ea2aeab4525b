// Before anything is drawn, so that nothing flashes. The choice is the browser's until one is made.
(() => {
  const chosen = localStorage.getItem("quantserve.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
