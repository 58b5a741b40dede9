// Renews the page in place every two seconds. Without it the page reloads itself.
setInterval(async () => {
  if (document.hidden || !getSelection().isCollapsed) return;
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.title = fresh.title;
    document.body.classList.remove("gone");
  } catch {
    document.body.classList.add("gone");
    document.title = "Shoal: not running";
  }
}, 2000);
