// The few things that are done with elements of the page.

/** The element of an id. */
export const at = (id) => document.getElementById(id);

/** Put a text into the element of an id. */
export function tell(id, text) {
  at(id).textContent = text;
}

/** A new element with properties and children. */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
