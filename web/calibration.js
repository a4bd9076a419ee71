/**
 * The text that quantize() calibrates with where none is given; the command carries it too. Fetched when it is needed.
 * Two thirds are from Moby Dick (Herman Melville, 1851; public domain), the rest is code, chat and arithmetic of this
 * project, given to the public domain too (CC0). tests/fixtures/calibration.py made it.
 */
export default `CHAPTER 60. The Line.

With reference to the whaling scene shortly to be described, as well as for the better understanding of all similar scenes elsewhere presented, I have here to speak of the magical, sometimes horrible whale-line.

The line originally used in the fishery was of the best hemp, slightly vapoured with tar, not impregnated with it, as in the case of ordinary ropes; for while tar, as ordinarily used, makes the hemp more pliable to the rope-maker, and also renders the rope itself more convenient to the sailor for common ship use; yet, not only would the ordinary quantity too much stiffen the whale-line for the close coiling to which it must be subjected; but as most seamen are beginning to learn, tar in general by no means adds to the rope's durability or strength, however much it may give it compactness and gloss.

Of late years the Manilla rope has in the American fishery almost entirely superseded hemp as a material for whale-lines; for, though not so durable as hemp, it is stronger, and far more soft and elastic; and I will add (since there is an aesthetics in all things), is much more handsome and becoming to the boat, than hemp. Hemp is a dusky, dark fellow, a sort of Indian; but Manilla is as a golden-haired Circassian to behold.

The whale-line is only two-thirds of an inch in thickness. At first sight, you would not think it so strong as it really is. By experiment its one and fifty yarns will each suspend a weight of one hundred and twenty pounds; so that the whole rope will bear a strain nearly equal to three tons. In length, the common sperm whale-line measures something over two hundred fathoms. Towards the stern of the boat it is spirally coiled away in the tub, not like the worm-pipe of a still though, but so as to form one round, cheese-shaped mass of densely bedded "sheaves," or layers of concentric spiralizations, without any hollow but the "heart," or minute vertical tube formed at the axis of the cheese. As the least tangle or kink in the coiling would, in running out, infallibly take somebody's arm, leg, or entire body off, the utmost precaution is used in stowing the line in its tub. Some harpooneers will consume almost an entire morning in this business, carrying the line high aloft and then reeving it downwards through a block towards the tub, so as in the act of coiling to free it from all possible wrinkles and twists.

In the English boats two tubs are used instead of one; the same line being continuously coiled in both tubs.

/* x^exponent of the root mean squares, its extremes balanced around 1. */
static void make_scale(const nibl_site *site, double exponent, float *scale) {
    double low = HUGE_VAL, high = 0;
    for (uint32_t j = 0; j < site->cols; j++) {
        const double square = (double)site->squares[j];
        double s = square > 1e-30 ? nibl_pow(square, exponent / 2) : 0;
        if (s < 1e-4) s = 1e-4;
        scale[j] = (float)s;
        low = s < low ? s : low;
        high = s > high ? s : high;
    }
    const float balance = (float)(1 / sqrt(low * high));

User: Why do the leaves of some trees turn red in autumn?
Assistant: Two things happen at once. The tree stops making chlorophyll, so the green fades and the yellow that was there all along shows. Some trees then make a red pigment from the sugar left in the leaf, most of all when days are sunny and nights are cool.

Emma has 72 shells and gives 21 of them to David. Emma keeps 72 - 21 = 51 shells.
Ben has 54 stamps and gets 60 more from Carla. Now Ben has 54 + 60 = 114 stamps.
17 + 18 * 2 = 17 + 36 = 53
31 * 2 = 62

There is some advantage in this; because these twin-tubs being so small they fit more readily into the boat, and do not strain it so much; whereas, the American tub, nearly three feet in diameter and of proportionate depth, makes a rather bulky freight for a craft whose planks are but one half-inch in thickness; for the bottom of the whale-boat is like critical ice, which will bear up a considerable distributed weight, but not very much of a concentrated one. When the painted canvas cover is clapped on the American line-tub, the boat looks as if it were pulling off with a prodigious great wedding-cake to present to the whales.

Both ends of the line are exposed; the lower end terminating in an eye-splice or loop coming up from the bottom against the side of the tub, and hanging over its edge completely disengaged from everything. This arrangement of the lower end is necessary on two accounts. First: In order to facilitate the fastening to it of an additional line from a neighboring boat, in case the stricken whale should sound so deep as to threaten to carry off the entire line originally attached to the harpoon. In these instances, the whale of course is shifted like a mug of ale, as it were, from the one boat to the other; though the first boat always hovers at hand to assist its consort. Second: This arrangement is indispensable for common safety's sake; for were the lower end of the line in any way attached to the boat, and were the whale then to run the line out to the end almost in a single, smoking minute as he sometimes does, he would not stop there, for the doomed boat would infallibly be dragged down after him into the profundity of the sea; and in that case no town-crier would ever find her again.

Before lowering the boat for the chase, the upper end of the line is taken aft from the tub, and passing round the loggerhead there, is again carried forward the entire length of the boat, resting crosswise upon the loom or handle of every man's oar, so that it jogs against his wrist in rowing; and also passing between the men, as they alternately sit at the opposite gunwales, to the leaded chocks or grooves in the extreme pointed prow of the boat, where a wooden pin or skewer the size of a common quill, prevents it from slipping out.

for (uint32_t j = 0; j < site->cols; j++) scale[j] *= balance;
}

def gptq(weights, hessian, scales):
    rows, cols = weights.shape
    order = np.argsort(-np.diag(hessian), kind="stable")
    w, h = weights[:, order].copy(), hessian[order][:, order].copy()
    h[np.diag_indices(cols)] += 0.01 * np.diag(h).mean()
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    codes, margin = np.zeros((rows, cols), np.int32), np.zeros((rows, cols))
    for i in range(cols):
        d = scales[:, order[i] // 32]
        y = w[:, i] / d

User: Could you suggest a name for my small bicycle repair shop?
Assistant: Of course. A few ideas:
1. Second Gear
2. The Spoke Room
3. True Wheel
I like the last one best, because to true a wheel is also what you do there.

14 + 39 * 5 = 14 + 195 = 209
62 - 35 = 27
30 percent of 790 is 237.

From the chocks it hangs in a slight festoon over the bows, and is then passed inside the boat again; and some ten or twenty fathoms (called box-line) being coiled upon the box in the bows, it continues its way to the gunwale still a little further aft, and is then attached to the short-warp—the rope which is immediately connected with the harpoon; but previous to that connexion, the short-warp goes through sundry mystifications too tedious to detail.

Thus the whale-line folds the whole boat in its complicated coils, twisting and writhing around it in almost every direction. All the oarsmen are involved in its perilous contortions; so that to the timid eye of the landsman, they seem as Indian jugglers, with the deadliest snakes sportively festooning their limbs. Nor can any son of mortal woman, for the first time, seat himself amid those hempen intricacies, and while straining his utmost at the oar, bethink him that at any unknown instant the harpoon may be darted, and all these horrible contortions be put in play like ringed lightnings; he cannot be thus circumstanced without a shudder that makes the very marrow in his bones to quiver in him like a shaken jelly. Yet habit—strange thing! what cannot habit accomplish?—Gayer sallies, more merry mirth, better jokes, and brighter repartees, you never heard over your mahogany, than you will hear over the half-inch white cedar of the whale-boat, when thus hung in hangman's nooses; and, like the six burghers of Calais before King Edward, the six men composing the crew pull into the jaws of death, with a halter around every neck, as you may say.

Perhaps a very little thought will now enable you to account for those repeated whaling disasters—some few of which are casually chronicled—of this man or that man being taken out of the boat by the line, and lost. For, when the line is darting out, to be seated then in the boat, is like being seated in the midst of the manifold whizzings of a steam-engine in full play, when every flying beam, and shaft, and wheel, is grazing you.

q = np.clip(np.rint(y), -8, 7)
        codes[:, order[i]] = q
        margin[:, order[i]] = np.abs(np.abs(y - np.floor(y)) - 0.5)
        error = (w[:, i] - q * d) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
    return codes, margin


def main():
    rng = np.random.default_rng(20251127)
    with open(FIXTURES / "gptq.bin", "wb") as out:
        for rows, cols, samples in ((6, 32, 100), (5, 96, 60), (3, 160, 400)):
            mixing = rng.normal(size=(cols, cols)) / np.sqrt(cols) + np.diag(np.exp(rng.normal(0, 1, cols)))

User: My houseplant has yellow leaves and the soil is always wet. What is wrong?
Assistant: It is most likely getting too much water. Let the upper half of the soil dry out before you water again, empty the saucer, and check that the pot has a hole. If the roots are brown and soft, cut those off and put the plant into fresh soil.

Grace buys 4 boxes of 23 cards each. That makes 4 * 23 = 92 cards.
80 percent of 610 is 488.
Iris has 86 apples and gives 32 of them to Grace. Iris keeps 86 - 32 = 54 apples.
Ben buys 4 boxes of 44 coins each. That makes 4 * 44 = 176 coins.

It is worse; for you cannot sit motionless in the heart of these perils, because the boat is rocking like a cradle, and you are pitched one way and the other, without the slightest warning; and only by a certain self-adjusting buoyancy and simultaneousness of volition and action, can you escape being made a Mazeppa of, and run away with where the all-seeing sun himself could never pierce you out.

Again: as the profound calm which only apparently precedes and prophesies of the storm, is perhaps more awful than the storm itself; for, indeed, the calm is but the wrapper and envelope of the storm; and contains it in itself, as the seemingly harmless rifle holds the fatal powder, and the ball, and the explosion; so the graceful repose of the line, as it silently serpentines about the oarsmen before being brought into actual play—this is a thing which carries more of true terror than any other aspect of this dangerous affair. But why say more? All men live enveloped in whale-lines. All are born with halters round their necks; but it is only when caught in the swift, sudden turn of death, that mortals realize the silent, subtle, ever-present perils of life. And if you be a philosopher, though seated in the whale-boat, you would not at heart feel one whit more of terror, than though seated before your evening fire with a poker, and not a harpoon, by your side.


CHAPTER 61. Stubb Kills a Whale.

If to Starbuck the apparition of the Squid was a thing of portents, to Queequeg it was quite a different object.

"When you see him 'quid," said the savage, honing his harpoon in the bow of his hoisted boat, "then you quick see him 'parm whale."

The next day was exceedingly still and sultry, and with nothing special to engage them, the Pequod's crew could hardly resist the spell of sleep induced by such a vacant sea. For this part of the Indian Ocean through which we then were voyaging is not what whalemen call a lively ground; that is, it affords fewer glimpses of porpoises, dolphins, flying-fish, and other vivacious denizens of more stirring waters, than those off the Rio de la Plata, or the in-shore ground off Peru.

It was my turn to stand at the foremast-head; and with my shoulders leaning against the slackened royal shrouds, to and fro I idly swayed in what seemed an enchanted air. No resolution could withstand it; in that dreamy mood losing all consciousness, at last my soul went out of my body; though my body still continued to sway as a pendulum will, long after the power which first moved it is withdrawn.

Ere forgetfulness altogether came over me, I had noticed that the seamen at the main and mizzen-mast-heads were already drowsy.

x = rng.normal(size=(samples, cols)) @ mixing
            x[:, 3] = 0  # a dead column
            hessian = (x.T @ x).astype(np.float32)
            weights = rng.standard_t(5, (rows, cols)).astype(np.float32)
            groups = weights.reshape(rows, -1, 32)
            peak = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)[..., 0]
            scales = (peak / -8).astype(np.float16).astype(np.float32)
            codes, margin = gptq(weights.astype(np.float64), hessian.astype(np.float64), scales.astype(np.float64))

User: What is the capital of Australia?
Assistant: The capital of Australia is Canberra. Many people expect Sydney, which is larger, but Canberra was built as a compromise between Sydney and Melbourne.

23 + 38 = 61
66 * 2 = 132
472 marbles are shared among 8 children. Each gets 472 / 8 = 59 marbles.
70 percent of 120 is 84.

So that at last all three of us lifelessly swung from the spars, and for every swing that we made there was a nod from below from the slumbering helmsman. The waves, too, nodded their indolent crests; and across the wide trance of the sea, east nodded to west, and the sun over all.

Suddenly bubbles seemed bursting beneath my closed eyes; like vices my hands grasped the shrouds; some invisible, gracious agency preserved me; with a shock I came back to life. And lo! close under our lee, not forty fathoms off, a gigantic Sperm Whale lay rolling in the water like the capsized hull of a frigate, his broad, glossy back, of an Ethiopian hue, glistening in the sun's rays like a mirror. But lazily undulating in the trough of the sea, and ever and anon tranquilly spouting his vapoury jet, the whale looked like a portly burgher smoking his pipe of a warm afternoon. But that pipe, poor whale, was thy last. As if struck by some enchanter's wand, the sleepy ship and every sleeper in it all at once started into wakefulness; and more than a score of voices from all parts of the vessel, simultaneously with the three notes from aloft, shouted forth the accustomed cry, as the great fish slowly and regularly spouted the sparkling brine into the air.

"Clear away the boats! Luff!" cried Ahab. And obeying his own order, he dashed the helm down before the helmsman could handle the spokes.

The sudden exclamations of the crew must have alarmed the whale; and ere the boats were down, majestically turning, he swam away to the leeward, but with such a steady tranquillity, and making so few ripples as he swam, that thinking after all he might not as yet be alarmed, Ahab gave orders that not an oar should be used, and no man must speak but in whispers. So seated like Ontario Indians on the gunwales of the boats, we swiftly but silently paddled along; the calm not admitting of the noiseless sails being set. Presently, as we thus glided in chase, the monster perpendicularly flitted his tail forty feet into the air, and then sank out of sight like a tower swallowed up.

"There go flukes!" was the cry, an announcement immediately followed by Stubb's producing his match and igniting his pipe, for now a respite was granted. After the full interval of his sounding had elapsed, the whale rose again, and being now in advance of the smoker's boat, and much nearer to it than to any of the others, Stubb counted upon the honour of the capture. It was obvious, now, that the whale had at length become aware of his pursuers. All silence of cautiousness was therefore no longer of use. Paddles were dropped, and oars came loudly into play. And still puffing at his pipe, Stubb cheered on his crew to the assault.

Yes, a mighty change had come over the fish.

out.write(struct.pack("<II", rows, cols))
            for part in (hessian, weights, scales, codes, margin.astype(np.float32)):
                out.write(np.ascontiguousarray(part).tobytes())
            nearest = np.clip(np.rint(groups / scales[..., None]), -8, 7).reshape(rows, cols)
            error = [np.einsum("ri,ij,rj", e, hessian.astype(np.float64), e) for e in
                     (c * scales.repeat(32, 1) - weights for c in (codes, nearest))]

User: Explain what a variable is to somebody who has never programmed.
Assistant: Think of a box with a label on it. You can put something into the box, say the number 7, and later ask for it by the label. You may also put something else in; the label stays the same. In a program we would write 'price = 7', and from then on 'price' means 7 until we change it.

(45 + 33) * 7 = 78 * 7 = 546
41 + 50 = 91
(32 + 57) * 8 = 89 * 8 = 712
72 - 36 = 36

All alive to his jeopardy, he was going "head out"; that part obliquely projecting from the mad yeast which he brewed.*

*It will be seen in some other place of what a very light substance the entire interior of the sperm whale's enormous head consists. Though apparently the most massive, it is by far the most buoyant part about him. So that with ease he elevates it in the air, and invariably does so when going at his utmost speed. Besides, such is the breadth of the upper part of the front of his head, and such the tapering cut-water formation of the lower part, that by obliquely elevating his head, he thereby may be said to transform himself from a bluff-bowed sluggish galliot into a sharppointed New York pilot-boat.

"Start her, start her, my men! Don't hurry yourselves; take plenty of time—but start her; start her like thunder-claps, that's all," cried Stubb, spluttering out the smoke as he spoke. "Start her, now; give 'em the long and strong stroke, Tashtego. Start her, Tash, my boy—start her, all; but keep cool, keep cool—cucumbers is the word—easy, easy—only start her like grim death and grinning devils, and raise the buried dead perpendicular out of their graves, boys—that's all. Start her!"

"Woo-hoo! Wa-hee!" screamed the Gay-Header in reply, raising some old war-whoop to the skies; as every oarsman in the strained boat involuntarily bounced forward with the one tremendous leading stroke which the eager Indian gave.

But his wild screams were answered by others quite as wild. "Kee-hee! Kee-hee!" yelled Daggoo, straining forwards and backwards on his seat, like a pacing tiger in his cage.

"Ka-la! Koo-loo!" howled Queequeg, as if smacking his lips over a mouthful of Grenadier's steak. And thus with oars and yells the keels cut the sea. Meanwhile, Stubb retaining his place in the van, still encouraged his men to the onset, all the while puffing the smoke from his mouth. Like desperadoes they tugged and they strained, till the welcome cry was heard—"Stand up, Tashtego!—give it to him!" The harpoon was hurled. "Stern all!" The oarsmen backed water; the same moment something went hot and hissing along every one of their wrists. It was the magical line. An instant before, Stubb had swiftly caught two additional turns with it round the loggerhead, whence, by reason of its increased rapid circlings, a hempen blue smoke now jetted up and mingled with the steady fumes from his pipe. As the line passed round and round the loggerhead; so also, just before reaching that point, it blisteringly passed through and through both of Stubb's hands, from which the hand-cloths, or squares of quilted canvas sometimes worn at these times, had accidentally dropped.

print(f"gptq: {rows} x {cols}, error {error[0]:.4g} instead of {error[1]:.4g} of nearest codes")

static nibl_status order_columns(const float *sums, const float *scale, const nibl_factor *f) {
    activity *list = nibl_alloc((uint64_t)f->size * sizeof *list);
    if (!list) return nibl_fail_memory((uint64_t)f->size * sizeof *list, "the order of columns");
    for (uint32_t i = 0; i < f->size; i++)
        list[i] = (activity){
            i < f->n ? sums[nibl_panel_at(f->size, i, i)] * (scale ? scale[i] * scale[i] : 1) : 0, i};

User: Write an email to my landlord: the heating has not worked since Monday.
Assistant: Subject: Heating in flat 12

Dear Mr. Osborne,

the heating in my flat has not worked since Monday, and it is 14 degrees in the living room. Could you please send somebody this week? I am at home after four o'clock and can be reached by telephone at any time.

Kind regards,
Lena Fischer

Ben buys 9 boxes of 14 cards each. That makes 9 * 14 = 126 cards.
Jack has 42 cards and gets 29 more from Grace. Now Jack has 42 + 29 = 71 cards.
498 stamps are shared among 6 children. Each gets 498 / 6 = 83 stamps.
522 stamps are shared among 9 children. Each gets 522 / 9 = 58 stamps.

It was like holding an enemy's sharp two-edged sword by the blade, and that enemy all the time striving to wrest it out of your clutch.

"Wet the line! wet the line!" cried Stubb to the tub oarsman (him seated by the tub) who, snatching off his hat, dashed sea-water into it.* More turns were taken, so that the line began holding its place. The boat now flew through the boiling water like a shark all fins. Stubb and Tashtego here changed places—stem for stern—a staggering business truly in that rocking commotion.

*Partly to show the indispensableness of this act, it may here be stated, that, in the old Dutch fishery, a mop was used to dash the running line with water; in many other ships, a wooden piggin, or bailer, is set apart for that purpose. Your hat, however, is the most convenient.

From the vibrating line extending the entire length of the upper part of the boat, and from its now being more tight than a harpstring, you would have thought the craft had two keels—one cleaving the water, the other the air—as the boat churned on through both opposing elements at once. A continual cascade played at the bows; a ceaseless whirling eddy in her wake; and, at the slightest motion from within, even but of a little finger, the vibrating, cracking craft canted over her spasmodic gunwale into the sea. Thus they rushed; each man with might and main clinging to his seat, to prevent being tossed to the foam; and the tall form of Tashtego at the steering oar crouching almost double, in order to bring down his centre of gravity. Whole Atlantics and Pacifics seemed passed as they shot on their way, till at length the whale somewhat slackened his flight.

"Haul in—haul in!" cried Stubb to the bowsman! and, facing round towards the whale, all hands began pulling the boat up to him, while yet the boat was being towed on. Soon ranging up by his flank, Stubb, firmly planting his knee in the clumsy cleat, darted dart after dart into the flying fish; at the word of command, the boat alternately sterning out of the way of the whale's horrible wallow, and then ranging up for another fling.

The red tide now poured from all sides of the monster like brooks down a hill. His tormented body rolled not in brine but in blood, which bubbled and seethed for furlongs behind in their wake. The slanting sun playing upon this crimson pond in the sea, sent back its reflection into every face, so that they all glowed to each other like red men.

qsort(list, f->n, sizeof *list, compare_activities);
    for (uint32_t i = 0; i < f->size; i++) f->order[i] = list[i].column;
    nibl_free(list);
    return NIBL_OK;
}

  /** The next bytes of the file; null at its end. @returns {Promise<Uint8Array | null>} */
  async next() {
    const asker = this.#asker()
    try {
      const parts = [this.#binding.quantizerOutput(this.#quantizer)]
      for (let length = parts[0].length; this.#status !== OK && length < STEP; length += parts[parts.length - 1].length) {
        this.#signal.throwIfAborted()

User: Is it safe to eat an apple with a brown spot?
Assistant: Yes. A brown spot is usually a bruise: air has reached the flesh and coloured it. Cut it out if you do not like the taste. Only throw the apple away if it is mouldy or smells of alcohol.

20 percent of 840 is 168.
150 tickets are shared among 3 children. Each gets 150 / 3 = 50 tickets.
50 percent of 790 is 395.
Half of 62 is 31, and a quarter of 224 is 56.

And all the while, jet after jet of white smoke was agonizingly shot from the spiracle of the whale, and vehement puff after puff from the mouth of the excited headsman; as at every dart, hauling in upon his crooked lance (by the line attached to it), Stubb straightened it again and again, by a few rapid blows against the gunwale, then again and again sent it into the whale.

"Pull up—pull up!" he now cried to the bowsman, as the waning whale relaxed in his wrath. "Pull up!—close to!" and the boat ranged along the fish's flank. When reaching far over the bow, Stubb slowly churned his long sharp lance into the fish, and kept it there, carefully churning and churning, as if cautiously seeking to feel after some gold watch that the whale might have swallowed, and which he was fearful of breaking ere he could hook it out. But that gold watch he sought was the innermost life of the fish. And now it is struck; for, starting from his trance into that unspeakable thing called his "flurry," the monster horribly wallowed in his blood, overwrapped himself in impenetrable, mad, boiling spray, so that the imperilled craft, instantly dropping astern, had much ado blindly to struggle out from that phrensied twilight into the clear air of the day.

And now abating in his flurry, the whale once more rolled out into view; surging from side to side; spasmodically dilating and contracting his spout-hole, with sharp, cracking, agonized respirations. At last, gush after gush of clotted red gore, as if it had been the purple lees of red wine, shot into the frighted air; and falling back again, ran dripping down his motionless flanks into the sea. His heart had burst!

"He's dead, Mr. Stubb," said Daggoo.

"Yes; both pipes smoked out!" and withdrawing his own from his mouth, Stubb scattered the dead ashes over the water; and, for a moment, stood thoughtfully eyeing the vast corpse he had made.


CHAPTER 62. The Dart.

A word concerning an incident in the last chapter.

According to the invariable usage of the fishery, the whale-boat pushes off from the ship, with the headsman or whale-killer as temporary steersman, and the harpooneer or whale-fastener pulling the foremost oar, the one known as the harpooneer-oar. Now it needs a strong, nervous arm to strike the first iron into the fish; for often, in what is called a long dart, the heavy implement has to be flung to the distance of twenty or thirty feet.

const chunk = await this.#input.next(asker)
        this.#status = chunk ? this.#binding.feed(this.#loader, chunk) : OK
        parts.push(this.#binding.quantizerOutput(this.#quantizer))
      }
      const whole = await new Blob(parts).arrayBuffer()
      if (whole.byteLength > 0) return new Uint8Array(whole)
      await this.#input.complete()
      await this.#input.end()
      return null
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    }
  }

User: I have 40 euros and want to buy three tickets for 12.50 each. Do I have enough?
Assistant: Yes. Three tickets cost 3 * 12.50 = 37.50 euros, so you have 40 - 37.50 = 2.50 euros left.

261 / 3 = 87
12 + 52 = 64
David buys 4 boxes of 31 tickets each. That makes 4 * 31 = 124 tickets.

But however prolonged and exhausting the chase, the harpooneer is expected to pull his oar meanwhile to the uttermost; indeed, he is expected to set an example of superhuman activity to the rest, not only by incredible rowing, but by repeated loud and intrepid exclamations; and what it is to keep shouting at the top of one's compass, while all the other muscles are strained and half started—what that is none know but those who have tried it. For one, I cannot bawl very heartily and work very recklessly at one and the same time. In this straining, bawling state, then, with his back to the fish, all at once the exhausted harpooneer hears the exciting cry—"Stand up, and give it to him!" He now has to drop and secure his oar, turn round on his centre half way, seize his harpoon from the crotch, and with what little strength may remain, he essays to pitch it somehow into the whale. No wonder, taking the whole fleet of whalemen in a body, that out of fifty fair chances for a dart, not five are successful; no wonder that so many hapless harpooneers are madly cursed and disrated; no wonder that some of them actually burst their blood-vessels in the boat; no wonder that some sperm whalemen are absent four years with four barrels; no wonder that to many ship owners, whaling is but a losing concern; for it is the harpooneer that makes the voyage, and if you take the breath out of his body how can you expect to find it there when most wanted!

Again, if the dart be successful, then at the second critical instant, that is, when the whale starts to run, the boatheader and harpooneer likewise start to running fore and aft, to the imminent jeopardy of themselves and every one else. It is then they change places; and the headsman, the chief officer of the little craft, takes his proper station in the bows of the boat.

Now, I care not who maintains the contrary, but all this is both foolish and unnecessary. The headsman should stay in the bows from first to last; he should both dart the harpoon and the lance, and no rowing whatever should be expected of him, except under circumstances obvious to any fisherman. I know that this would sometimes involve a slight loss of speed in the chase; but long experience in various whalemen of more than one nation has convinced me that in the vast majority of failures in the fishery, it has not by any means been so much the speed of the whale as the before described exhaustion of the harpooneer that has caused them.

To insure the greatest efficiency in the dart, the harpooneers of this world must start to their feet from out of idleness, and not from out of toil.


CHAPTER 63. The Crotch.

Out of the trunk, the branches grow; out of them, the twigs.

static bool matches(const char *pattern, nibl_slice name) {
    const char *star = NULL;
    size_t at = 0, retry = 0;
    while (at < name.length) {
        if (*pattern == '*') {
            star = ++pattern;
            retry = at;
        } else if (*pattern && (*pattern == '?' || *pattern == name.bytes[at])) {
            pattern++;
            at++;
        } else if (star) {
            pattern = star;
            at = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;

User: How can I remember the names of people I have just met?
Assistant: Say the name back at once ("Nice to meet you, Priya"), use it once more before you leave, and tie it to something you see, such as a green scarf. Write it down the same evening. Most people forget because they never really listened, so the first step is the one that counts.

86 - 48 = 38
180 / 9 = 20
252 books are shared among 9 children. Each gets 252 / 9 = 28 books.
34 + 22 = 56

`
