// What the reports of quality say, in the forms that several pages show.

/**
 * The agreement that the verdict goes by: of the origin whose interval begins lowest, among those with enough samples;
 * while none has enough, of that with most.
 * @param {VariantQuality} quality
 * @returns {Agreement | null}
 */
export function agreementOf(quality) {
  const known = quality.origins.map(({ measures, origin }) => ({ ...measures.agreement, origin }));
  const decisive = known.find(({ low }) => low === quality.quality_low);
  known.sort((a, b) => b.count - a.count);
  return decisive ?? known[0] ?? null;
}
