// Clicks, focus, the address, and the picture of an answer.
const regen = {
  // Buttons in HTML send their action and index; afterwards the focus stays where it was.
  clicks(element, trigger, watch) {
    let last = null;
    element.addEventListener('click', event => {
      const button = event.target.closest('button');
      if (button?.dataset.purchase) regen.show(button.dataset.purchase);
      if (!button?.dataset.act || button.disabled) return;
      last = { act: button.dataset.act, at: Number(button.dataset.at) };
      trigger(button.dataset.event || 'click', { act: button.dataset.act, at: button.dataset.at });
      if (last.act === 'review') setTimeout(() => document.querySelector('#review textarea')?.focus(), 500);
    });
    watch('value', () => {
      const strongest = element.querySelector('ol.measured li.top');
      if (strongest) strongest.parentElement.scrollTop = strongest.offsetTop - strongest.parentElement.offsetTop;
      if (last && document.activeElement === document.body) regen.refocus(element, last);
    });
  },

  refocus(element, { act, at }) {
    const count = element.querySelectorAll('ol.history li').length;
    const next = Math.min(at + ({ later: 1, earlier: -1 }[act] || 0), count - 1);
    const near = [...element.querySelectorAll(`button[data-at="${next}"]`)].filter(button => !button.disabled);
    (near.find(button => button.dataset.act === act) || near[0] || document.querySelector('#ask'))?.focus();
  },

  show(index) {
    const purchase = document.querySelector(`ol.history li[data-purchase="${index}"]`);
    purchase?.scrollIntoView({ block: 'center', behavior: 'smooth' });
    purchase?.animate([{ outline: '3px solid var(--color-accent)' }, { outline: '3px solid transparent' }], 2000);
  },

  // The address names the shopper, the changes, the question and the tab; Back shows what it named before.
  link(changes) {
    const url = new URL(location);
    for (const [name, value] of Object.entries(changes)) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    if (url.href === location.href) return;
    history[regen.opened ? 'pushState' : 'replaceState'](null, '', url);
    regen.opened = true;
  },

  linked(element, watch) {
    watch('value', () => {
      const state = element.querySelector('i');
      if (!state) return;
      regen.link({ shopper: state.dataset.shopper, purchases: state.dataset.purchases });
      if (state.dataset.ask) setTimeout(() => document.querySelector('#ask')?.click(), 50);
    });
  },

  // A picture of the answer and what it rests on: to the clipboard, or as a file where that is not allowed.
  async picture() {
    const answer = document.querySelector('#answer .answer:not(.empty)');
    if (!answer) return 'There is no answer yet.';
    const parts = [
      ['600 26px system-ui, sans-serif', '#047857', document.querySelector('#who .person')?.innerText],
      ['34px system-ui, sans-serif', '#111827', answer.innerText],
      ['26px system-ui, sans-serif', '#374151', document.querySelector('#reasons .why')?.innerText],
      ['20px system-ui, sans-serif', '#6b7280', document.title],
    ];
    const canvas = document.createElement('canvas'), pen = canvas.getContext('2d'), lines = [];
    let height = 60;
    for (const [font, colour, text] of parts) {
      pen.font = font;
      let line = '';
      for (const word of `${text || ''} \n`.split(/[ \t]+/)) {
        const longer = line ? `${line} ${word}` : word;
        if (word !== '\n' && pen.measureText(longer).width < 1080) { line = longer; continue; }
        height += 1.4 * parseInt(font.match(/(\d+)px/)[1], 10);
        lines.push([font, colour, line, height]);
        line = word;
      }
      height += 24;
    }
    [canvas.width, canvas.height] = [1200, height + 40];
    pen.fillStyle = '#ffffff';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    for (const [font, colour, line, y] of lines) {
      [pen.font, pen.fillStyle] = [font, colour];
      pen.fillText(line, 60, y);
    }
    const blob = await new Promise(done => canvas.toBlob(done));
    try {
      await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
      return 'Copied.';
    } catch {
      const file = Object.assign(document.createElement('a'), { href: URL.createObjectURL(blob), download: 'answer.png' });
      file.click();
      return 'Saved as answer.png.';
    }
  },
};
addEventListener('popstate', () => location.reload());
