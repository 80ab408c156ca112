// Runs before the first paint, so that a dark page is never white first. Not a module: modules wait.
(() => {
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const read = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const apply = () => {
    const chosen = read('tangelo.theme');
    const theme = chosen === 'light' || chosen === 'dark' ? chosen : dark.matches ? 'dark' : 'light';
    root.dataset.theme = theme;
    const colour = document.querySelector('meta[name="theme-color"]');
    if (colour) colour.content = theme === 'dark' ? '#171311' : '#fbf7f2';
  };
  apply();
  dark.addEventListener('change', apply);
  document.addEventListener('tangelo-theme', apply);
  const language = read('tangelo.language') ?? navigator.language ?? 'en';
  root.lang = /^zh/i.test(language) ? 'zh-CN' : 'en';
})();
