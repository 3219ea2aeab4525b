// Where one text of tokens leaves another, and how probable each of the two tokens was there.

/**
 * A generated token. Until the first one that differs, both variants have read the same.
 * @typedef {object} Token
 * @property {string} text
 * @property {number[]} bytes
 * @property {number} logprob
 * @property {Map<string, number>} top Log-probabilities of the most probable tokens, itself among them.
 */

/**
 * @typedef {object} Divergence
 * @property {number} place Of the token, from 0.
 * @property {Token | null} own Of the variant; null if it ended there.
 * @property {Token | null} reference Likewise.
 * @property {Side} byOwn What the variant gave to both tokens.
 * @property {Side} byReference What the reference gave to them.
 */

/** @typedef {{own: number | null, reference: number | null}} Side Probabilities; null if not among those told. */

/**
 * @param {Token[]} own
 * @param {Token[]} reference
 * @param {boolean} areWhole Whether both are at their ends, so that one that is shorter has ended.
 * @returns {Divergence | null} null as far as they are the same.
 */
export function divergence(own, reference, areWhole) {
  const common = Math.min(own.length, reference.length);
  let place = 0;
  while (place < common && own[place].text === reference[place].text) place += 1;
  if (place === common && (own.length === reference.length || !areWhole)) return null;
  const [mine, theirs] = [own[place] ?? null, reference[place] ?? null];
  return {
    place,
    own: mine,
    reference: theirs,
    byOwn: { own: probability(mine, mine), reference: probability(mine, theirs) },
    byReference: { own: probability(theirs, mine), reference: probability(theirs, theirs) },
  };
}

/** What a variant that said one token gave to another. @param {Token | null} said @param {Token | null} of */
function probability(said, of) {
  if (said === null || of === null) return null;
  const logprob = said.top.get(of.text) ?? (said.text === of.text ? said.logprob : undefined);
  return logprob === undefined ? null : Math.exp(logprob);
}
