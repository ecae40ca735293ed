// Pictures that were drawn beforehand, one for each setting of some dials and menus.

import { explorer, listed, make } from "./kit.js";

export default explorer("album", ({ data, place }) => {
  const picture = make("img");
  place(picture);
  const values = data.choices.map(([, known]) => known);
  const dials = data.choices.map(([key, known]) =>
    known.every(Number.isFinite)
      ? listed(key, key, "", known)
      : { key, label: key, options: known.map((value) => [value, value]) },
  );
  return {
    dials,
    readouts: [],
    draw(now) {
      const at = dials.reduce((sum, dial, i) => sum * values[i].length + values[i].indexOf(now[dial.key]), 0);
      [picture.src, picture.alt] = data.pictures[at]; // the text is what is seen in it
      return { title: "", values: {} };
    },
  };
});
