// Small helpers to build nodes. Text goes in as text nodes only; there is no way to pass markup.

import { hueOf, initial } from './text.js';

const SVG = 'http://www.w3.org/2000/svg';
const HUES = 10;

/** An element with a class, attributes or handlers, and children (nodes or text). */
export function make(tag, { class: name, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  for (const [type, handler] of Object.entries(on)) element.addEventListener(type, handler);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the icons in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A name that keeps its own writing direction and that of the sentence around it. */
export function nameNode(name) {
  return make('bdi', { class: 'name' }, name);
}

/** The round picture of a name. */
export function avatar(name) {
  return make('span', { class: `avatar hue-${hueOf(name, HUES)}`, 'aria-hidden': 'true' }, initial(name));
}

/** The element with this id; the page is fixed, so it is there. */
export function byId(id) {
  return document.getElementById(id);
}

/** Runs `action` before the next paint; in a hidden page, where nothing is painted, soon. */
export function soon(action) {
  if (document.hidden) setTimeout(action, 0);
  else requestAnimationFrame(action);
}
