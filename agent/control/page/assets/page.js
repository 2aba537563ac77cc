// Brings the page up to date: asks for it again and puts the new content in
// the place of the old. It is optional; nothing is shown that the page without
// it does not show, except that the agent has stopped answering.
'use strict';
(() => {
  const every = 15000;
  let paused = false;
  let level = document.documentElement.dataset.level;
  const header = document.querySelector('header');

  const said = document.createElement('p'); // read out when the verdict changes
  said.className = 'vh';
  said.setAttribute('role', 'status');
  const stale = document.createElement('p');
  stale.className = 'stale';
  stale.setAttribute('role', 'alert');
  stale.hidden = true;
  header.after(said, stale);

  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Pause updates';
  button.addEventListener('click', () => {
    paused = !paused;
    button.textContent = paused ? 'Resume updates' : 'Pause updates';
    if (!paused) update();
  });
  header.append(button);

  // A phone shows the newest days, not the oldest.
  const toEnd = () => document.querySelectorAll('.scroll.end').forEach((e) => { e.scrollLeft = e.scrollWidth; });

  // What a person has selected is not taken from under their hands; but a page
  // that was forgotten so must not grow old, so it is for a minute.
  let waited = 0;
  const busy = () => {
    if (paused || document.hidden) return true;
    if (getSelection().isCollapsed || ++waited > 4) waited = 0;
    return waited > 0;
  };
  const places = () => [...document.querySelectorAll('main a, main summary, main [tabindex]')];

  const fail = (why) => {
    stale.textContent = 'The agent does not answer (' + why + '). What follows is old: ' + document.querySelector('#updated').textContent.toLowerCase() + '.';
    stale.hidden = false;
    document.title = '✘ No answer · trailpoll';
  };

  async function update() {
    let answer, text;
    try {
      answer = await fetch(location.href.split('#')[0], { cache: 'no-store', signal: AbortSignal.timeout(every) });
      text = await answer.text();
    } catch (e) {
      return fail('no connection');
    }
    const next = new DOMParser().parseFromString(text, 'text/html');
    const main = next.querySelector('#main');
    if (!main) return fail('status ' + answer.status);
    stale.hidden = true;
    const open = [...document.querySelectorAll('main details')].map((d) => d.open);
    const across = [...document.querySelectorAll('main .scroll')].map((e) => e.scrollLeft);
    const place = places().indexOf(document.activeElement);
    const y = scrollY;
    document.querySelector('#main').replaceChildren(...main.childNodes);
    document.querySelectorAll('main details').forEach((d, i) => { d.open = !!open[i]; });
    document.querySelectorAll('main .scroll').forEach((e, i) => { e.scrollLeft = across[i] || 0; });
    if (place >= 0) places()[place]?.focus({ preventScroll: true });
    scrollTo(scrollX, y);
    document.querySelector('#updated').replaceWith(next.querySelector('#updated'));
    document.title = next.title;
    document.querySelector('link[rel=icon]').href = next.querySelector('link[rel=icon]').getAttribute('href');
    const now = next.documentElement.dataset.level;
    if (now !== level) {
      level = now;
      document.documentElement.dataset.level = now;
      said.textContent = document.querySelector('#h-verdict').textContent;
    }
  }

  toEnd();
  document.addEventListener('visibilitychange', () => { if (!document.hidden && !paused) update(); });
  setInterval(() => { if (!busy()) update(); }, every);
})();
