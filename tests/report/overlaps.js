/* Rectangles of everything that is written, and the pairs of them that lie over each other. */
() => {
  const boxes = [];
  const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const add = (rectangle, text, clip) => {
    const left = Math.max(rectangle.left, clip ? clip.left : -1e9), right = Math.min(rectangle.right, clip ? clip.right : 1e9);
    if (right - left > 1 && rectangle.height > 1) boxes.push({ left, right, top: rectangle.top, bottom: rectangle.bottom, text });
  };
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || !shown(parent) || parent.closest("svg, select, option")) continue;
    const scroll = parent.closest(".scroll");
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rectangle of range.getClientRects()) add(rectangle, node.data.trim(), scroll && scroll.getBoundingClientRect());
  }
  for (const text of document.querySelectorAll("main svg text")) if (shown(text) && text.textContent.trim()) add(text.getBoundingClientRect(), text.textContent);
  const found = [];
  for (let a = 0; a < boxes.length; a++) for (let b = a + 1; b < boxes.length; b++) {
    const wide = Math.min(boxes[a].right, boxes[b].right) - Math.max(boxes[a].left, boxes[b].left);
    const high = Math.min(boxes[a].bottom, boxes[b].bottom) - Math.max(boxes[a].top, boxes[b].top);
    if (wide > 2 && high > 3) found.push([boxes[a].text, boxes[b].text]);
  }
  return { boxes: boxes.length, found };
}
