#!/usr/bin/env node
// Makes the tasks of `nibl eval --tasks DIR`: `node tests/bench/tasks.js DIR`. Items are generated, the same ones every
// time, 500 or more a task: arithmetic.jsonl, code.jsonl (what comes next in a piece of Python or JavaScript), facts.jsonl
// (capitals, elements, codes of countries and currencies: what is seldom read is forgotten first).

import * as fs from 'node:fs'
import { join } from 'node:path'
import { isProgram } from '../../wasm/setup.js'

/** mulberry32. @param {number} state */
function randomOf(state) {
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (/** @type {number} */ n) => Math.floor(next() * n)
  return {
    from: (/** @type {number} */ low, /** @type {number} */ high) => low + below(high - low + 1),
    /** @template T @param {T[]} list */
    of: (list) => list[below(list.length)],
    below,
  }
}

/** @typedef {ReturnType<typeof randomOf>} Random */
/** @typedef {{ prompt: string, choices: string[], answer: number }} Item */

/** An item whose right answer stands at a random place. @param {Random} random @param {string} prompt @param {string} right @param {string[]} wrong */
function item(random, prompt, right, wrong) {
  const answer = random.below(wrong.length + 1)
  return { prompt, choices: wrong.toSpliced(answer, 0, right), answer }
}

/** @template T @param {Random} random @param {T[]} list @param {T} right @param {number} count */
function others(random, list, right, count) {
  const left = list.filter((value) => value !== right)
  return Array.from({ length: count }, () => left.splice(random.below(left.length), 1)[0])
}

/** @param {Random} random @returns {Item} */
function arithmetic(random) {
  const sum = () => {
    const [a, b] = [random.from(2, 99), random.from(2, 99)]
    return random.below(2) ? { text: `${a} + ${b} =`, value: a + b } : { text: `${a + b} - ${b} =`, value: a }
  }
  const examples = Array.from({ length: 3 }, sum).map(({ text, value }) => `${text} ${value}\n`)
  const { text, value } = sum()
  const near = [1, -1, 2, -2, 10, -10, 11, 9].map((step) => value + step).filter((other) => other > 0)
  const wrong = others(random, near, NaN, 3).map((other) => ` ${other}`)
  return item(random, examples.join('') + text, ` ${value}`, wrong)
}

const names = 'alpha beta count delta first index item key left length limit name node offset order price rate result right row size step table total value weight width'.split(' ')

/** @type {((random: Random, names: string[]) => [string, string, string[]])[]} */
const pieces = [
  (_, [a, b]) => [`def add(${a}, ${b}):\n    """Return the sum of ${a} and ${b}."""\n    return`, ` ${a} + ${b}`, [` ${a} - ${b}`, ` ${a} * ${b}`, ` ${b} / ${a}`]],
  (_, [a, b]) => [`def larger(${a}, ${b}):\n    """Return the larger of two numbers."""\n    if ${a} > ${b}:\n        return ${a}\n    return`, ` ${b}`, [` ${a}`, ` None`, ` 0`]],
  (_, [a, b, c]) => [`for ${a} in range(len(${b})):\n    ${c} = ${b}`, `[${a}]`, [`(${a})`, `[${b}]`, `{${a}}`]],
  (_, [a, b, c]) => [`const ${a} = [1, 2, 3]\nconst ${b} = ${a}.map((${c}) => ${c} * 2)\nconsole.log(${b}`, `)`, [`]`, `}`, `))`]],
  (_, [a, b]) => [`print(sum([${a}, ${b}, max(${a}, ${b}`, `)]))`, [`]))`, `)))`, `)])`]],
  (_, [a, b]) => [`function ${a}(${b}) {\n  if (${b} === null) {\n    throw new`, ` Error('${b} is missing')`, [` null('${b} is missing')`, ` function('${b} is missing')`, ` ${b}('Error is missing')`]],
  (_, [a, b]) => [`with open(${a}) as ${b}:\n    text = ${b}`, `.read()`, [`.append()`, `.keys()`, `.sort()`]],
  (_, [a, b]) => [`${a} = {}\n${a}["${b}"] = 1\nif "${b}" in ${a}:\n    print(${a}`, `["${b}"])`, [`("${b}"])`, `["${a}"])`, `{"${b}"})`]],
  (random, [a]) => {
    const n = random.from(3, 40)
    return [`let ${a} = 0\nfor (let i = 0; i < ${n}; i`, `++)`, [`--)`, `**)`, `==)`]]
  },
  (_, [a, b]) => [`class ${a[0].toUpperCase()}${a.slice(1)}:\n    def __init__(self, ${b}):\n        self.${b} =`, ` ${b}`, [` ${a}`, ` __init__`, ` class`]],
]

/** @param {Random} random @returns {Item} */
function code(random) {
  const [first] = [random.of(names)]
  const chosen = [first, ...others(random, names, first, 2)]
  return item(random, ...random.of(pieces)(random, chosen))
}

const capitals = 'Afghanistan Kabul,Albania Tirana,Algeria Algiers,Angola Luanda,Armenia Yerevan,Australia Canberra,Austria Vienna,Azerbaijan Baku,Bahrain Manama,Bangladesh Dhaka,Barbados Bridgetown,Belarus Minsk,Belgium Brussels,Belize Belmopan,Bhutan Thimphu,Botswana Gaborone,Bulgaria Sofia,Burundi Gitega,Cambodia Phnom_Penh,Cameroon Yaounde,Canada Ottawa,Chad N’Djamena,Chile Santiago,Colombia Bogota,Croatia Zagreb,Cuba Havana,Cyprus Nicosia,Denmark Copenhagen,Ecuador Quito,Egypt Cairo,Eritrea Asmara,Estonia Tallinn,Ethiopia Addis_Ababa,Fiji Suva,Finland Helsinki,France Paris,Gabon Libreville,Georgia Tbilisi,Germany Berlin,Ghana Accra,Greece Athens,Guinea Conakry,Guyana Georgetown,Haiti Port-au-Prince,Honduras Tegucigalpa,Hungary Budapest,Iceland Reykjavik,India New_Delhi,Indonesia Jakarta,Iran Tehran,Iraq Baghdad,Ireland Dublin,Italy Rome,Jamaica Kingston,Japan Tokyo,Jordan Amman,Kenya Nairobi,Kyrgyzstan Bishkek,Laos Vientiane,Latvia Riga,Lebanon Beirut,Lesotho Maseru,Liberia Monrovia,Libya Tripoli,Lithuania Vilnius,Madagascar Antananarivo,Malawi Lilongwe,Malaysia Kuala_Lumpur,Maldives Male,Mali Bamako,Malta Valletta,Mauritania Nouakchott,Mauritius Port_Louis,Moldova Chisinau,Mongolia Ulaanbaatar,Montenegro Podgorica,Morocco Rabat,Mozambique Maputo,Namibia Windhoek,Nepal Kathmandu,Nicaragua Managua,Niger Niamey,Nigeria Abuja,Norway Oslo,Oman Muscat,Pakistan Islamabad,Paraguay Asuncion,Peru Lima,Philippines Manila,Poland Warsaw,Portugal Lisbon,Qatar Doha,Romania Bucharest,Russia Moscow,Rwanda Kigali,Samoa Apia,Senegal Dakar,Serbia Belgrade,Slovakia Bratislava,Slovenia Ljubljana,Somalia Mogadishu,Spain Madrid,Sudan Khartoum,Suriname Paramaribo,Sweden Stockholm,Switzerland Bern,Syria Damascus,Tajikistan Dushanbe,Tanzania Dodoma,Thailand Bangkok,Togo Lome,Tonga Nuku’alofa,Tunisia Tunis,Turkmenistan Ashgabat,Uganda Kampala,Ukraine Kyiv,Uruguay Montevideo,Uzbekistan Tashkent,Vanuatu Port_Vila,Venezuela Caracas,Vietnam Hanoi,Yemen Sanaa,Zambia Lusaka,Zimbabwe Harare'
const elements = 'Hydrogen H,Helium He,Lithium Li,Beryllium Be,Boron B,Carbon C,Nitrogen N,Oxygen O,Fluorine F,Neon Ne,Sodium Na,Magnesium Mg,Aluminium Al,Silicon Si,Phosphorus P,Sulfur S,Chlorine Cl,Argon Ar,Potassium K,Calcium Ca,Scandium Sc,Titanium Ti,Vanadium V,Chromium Cr,Manganese Mn,Iron Fe,Cobalt Co,Nickel Ni,Copper Cu,Zinc Zn,Gallium Ga,Germanium Ge,Arsenic As,Selenium Se,Bromine Br,Krypton Kr,Rubidium Rb,Strontium Sr,Yttrium Y,Zirconium Zr,Niobium Nb,Molybdenum Mo,Technetium Tc,Ruthenium Ru,Rhodium Rh,Palladium Pd,Silver Ag,Cadmium Cd,Indium In,Tin Sn,Antimony Sb,Tellurium Te,Iodine I,Xenon Xe,Caesium Cs,Barium Ba,Lanthanum La,Cerium Ce,Praseodymium Pr,Neodymium Nd,Promethium Pm,Samarium Sm,Europium Eu,Gadolinium Gd,Terbium Tb,Dysprosium Dy,Holmium Ho,Erbium Er,Thulium Tm,Ytterbium Yb,Lutetium Lu,Hafnium Hf,Tantalum Ta,Tungsten W,Rhenium Re,Osmium Os,Iridium Ir,Platinum Pt,Gold Au,Mercury Hg,Thallium Tl,Lead Pb,Bismuth Bi,Polonium Po,Astatine At,Radon Rn,Francium Fr,Radium Ra,Actinium Ac,Thorium Th,Protactinium Pa,Uranium U,Neptunium Np,Plutonium Pu,Americium Am,Curium Cm,Berkelium Bk,Californium Cf,Einsteinium Es,Fermium Fm,Mendelevium Md,Nobelium No,Lawrencium Lr,Rutherfordium Rf,Dubnium Db,Seaborgium Sg'
const currencies = 'Albania lek,Algeria dinar,Armenia dram,Bangladesh taka,Bolivia boliviano,Botswana pula,Brazil real,Bulgaria lev,Cambodia riel,China yuan,Croatia kuna,Denmark krone,Ethiopia birr,Georgia lari,Ghana cedi,Guatemala quetzal,Haiti gourde,Honduras lempira,Hungary forint,India rupee,Indonesia rupiah,Israel shekel,Japan yen,Kazakhstan tenge,Kenya shilling,Laos kip,Malaysia ringgit,Mexico peso,Mongolia tugrik,Morocco dirham,Nicaragua cordoba,Nigeria naira,Panama balboa,Paraguay guarani,Peru sol,Poland zloty,Romania leu,Russia ruble,Thailand baht,Ukraine hryvnia,Vietnam dong,Zambia kwacha'

/** Every fact once. @param {Random} random @returns {Item[]} */
function facts(random) {
  const table = (/** @type {string} */ text) => text.split(',').map((row) => row.split(' ').map((word) => word.replaceAll('_', ' ')))
  /** @param {string[][]} rows @param {(row: string[]) => string} prompt @param {number} column */
  const ask = (rows, prompt, column) => rows.map((row) => {
    const list = [...new Set(rows.map((other) => other[column]))]
    return item(random, prompt(row), ` ${row[column]}`, others(random, list, row[column], 3).map((word) => ` ${word}`))
  })
  const [places, atoms, money] = [capitals, elements, currencies].map(table)
  return [
    ...ask(places, ([country]) => `The capital of France is Paris. The capital of ${country} is`, 1),
    ...ask(places, ([, city]) => `Paris is the capital of France. ${city} is the capital of`, 0),
    ...ask(atoms, ([name]) => `The chemical symbol of an element: ${name} is`, 1),
    ...ask(atoms, ([, symbol]) => `In chemistry, the symbol ${symbol} stands for the element`, 0),
    ...ask(money, ([country]) => `The currency of the United States is the dollar. The currency of ${country} is the`, 1),
  ]
}

/** @param {string} folder */
export function makeTasks(folder) {
  const random = randomOf(7)
  /** Different ones. @param {(random: Random) => Item} make */
  const many = (make) => {
    /** @type {Map<string, Item>} */
    const items = new Map()
    while (items.size < 500) {
      const next = make(random)
      items.set(next.prompt, next)
    }
    return [...items.values()]
  }
  /** @type {Record<string, Item[]>} */
  const tasks = { arithmetic: many(arithmetic), code: many(code), facts: facts(random) }
  fs.mkdirSync(folder, { recursive: true })
  for (const [name, items] of Object.entries(tasks)) {
    fs.writeFileSync(join(folder, `${name}.jsonl`), items.map((one) => `${JSON.stringify(one)}\n`).join(''))
  }
  return Object.fromEntries(Object.entries(tasks).map(([name, items]) => [name, items.length]))
}

if (isProgram(import.meta.url)) {
  if (!process.argv[2]) throw new Error('usage: node tests/bench/tasks.js DIR')
  console.log(makeTasks(process.argv[2]))
}
