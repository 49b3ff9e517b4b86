"""Clocks and dates as people and programs write them, in many languages; digits are ASCII ones when they come here."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_I: Final = re.IGNORECASE

EDGE: Final = r"(?a:\b)"
"""The edge of a figure or an identifier. Beside Chinese, Thai or Hindi letters there is no blank."""
LETTER: Final = r"[^\s\d\x00-\x40\[-`{-\xbf\u2000-\u206f\u3000-\u303f،؛؟۔।॥]"
"""What is no blank, digit or punctuation: the vowel signs of India and of Thailand are letters, too."""
_NOT_IN_WORD: Final = rf"(?<!{LETTER})"
_WORD_ENDS: Final = rf"(?!{LETTER})"


def _names(*languages: str) -> str:
    """Words of several languages as alternatives, the longest first, in the form in which texts are compared."""
    words = {word for language in languages for word in unicodedata.normalize("NFKC", language).split()}
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_MONTHS: Final = _names(
    "january february march april june july august september october november december",
    "jan feb mar apr jun jul aug sep sept oct nov dec",
    "januar jänner februar märz mai juni juli oktober dezember okt dez",
    "janvier février mars avril juin juillet août septembre octobre novembre décembre janv févr avr juil déc",
    "enero febrero marzo abril mayo junio julio agosto septiembre setiembre octubre noviembre diciembre abr ago dic",
    "janeiro fevereiro março maio junho julho setembro outubro novembro dezembro fev mai",
    "gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre",
    "januari februari maart mei augustus augusti maj marts juin desember agustus maret",
    "tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta syyskuuta lokakuuta",
    "marraskuuta joulukuuta",
    "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
    "ledna února března dubna května června července srpna září října listopadu prosince",
    "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь",
    "січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня",
    "ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου ιουλίου αυγούστου σεπτεμβρίου οκτωβρίου νοεμβρίου",
    "δεκεμβρίου",
    "يناير فبراير مارس أبريل ابريل مايو يونيو يوليو أغسطس اغسطس سبتمبر أكتوبر اكتوبر نوفمبر ديسمبر",
    "شباط آذار نيسان أيار حزيران تموز أيلول",
    "فروردین اردیبهشت خرداد مرداد شهریور مهر آبان آذر بهمن اسفند",
    "ינואר פברואר מרץ אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר",
    "בינואר בפברואר במרץ באפריל במאי ביוני ביולי באוגוסט בספטמבר באוקטובר בנובמבר בדצמבר",
    "जनवरी फरवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर सितम्बर अक्टूबर अक्तूबर नवंबर नवम्बर दिसंबर दिसम्बर",
    "জানুয়ারি ফেব্রুয়ারি মার্চ এপ্রিল জুন জুলাই আগস্ট সেপ্টেম্বর অক্টোবর নভেম্বর ডিসেম্বর",
    "ஜனவரி பிப்ரவரி மார்ச் ஏப்ரல் ஜூன் ஜூலை ஆகஸ்ட் செப்டம்பர் அக்டோபர் நவம்பர் டிசம்பர்",
    "มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน ตุลาคม พฤศจิกายน ธันวาคม",
)
_WEEKDAYS: Final = _names(
    "monday tuesday wednesday thursday friday saturday sunday",
    "montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag",
    "lundi mardi mercredi jeudi vendredi samedi dimanche lunes martes miércoles miercoles jueves viernes sábado sabado",
    "domingo segunda-feira terça-feira terca-feira quarta-feira quinta-feira sexta-feira",
    "lunedì martedì mercoledì giovedì venerdì lunedi martedi mercoledi giovedi venerdi sabato domenica",
    "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "måndag tisdag onsdag torsdag fredag lördag söndag mandag tirsdag lørdag søndag",
    "maanantai tiistai keskiviikko torstai perjantai lauantai sunnuntai",
    "poniedziałek wtorek środa czwartek piątek sobota niedziela pondělí úterý středa čtvrtek pátek neděle",
    "pazartesi salı çarşamba perşembe cuma cumartesi pazar",
    "понедельник вторник среда четверг пятница суббота воскресенье",
    "понеділок вівторок середа четвер пʼятниця субота неділя",
    "δευτέρα τρίτη τετάρτη πέμπτη παρασκευή σάββατο κυριακή",
    "الاثنين الإثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد",
    "شنبه یکشنبه دوشنبه سه‌شنبه چهارشنبه پنجشنبه پنج‌شنبه جمعه",
    "ראשון שלישי רביעי חמישי שישי",
    "सोमवार मंगलवार बुधवार गुरुवार बृहस्पतिवार शुक्रवार शनिवार रविवार",
    "সোমবার মঙ্গলবার বুধবার বৃহস্পতিবার শুক্রবার শনিবার রবিবার",
    "திங்கள் செவ்வாய் புதன் வியாழன் வெள்ளி சனி ஞாயிறு",
    "senin selasa rabu kamis jumat sabtu minggu",
)
_TODAY: Final = _names(
    "today heute aujourd'hui hoy hoje oggi vandaag idag dziś dzisiaj dnes bugün сегодня сьогодні σήμερα",
    "اليوم امروز היום",
    "आज আজ இன்று วันนี้ 今日 本日 今天 当前日期 오늘 date datum fecha data дата التاريخ तारीख วันที่ 日付 日期 날짜 tarih",
)

_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])"
_OF_YEAR: Final = r"(?:0?[1-9]|1[0-2])"
"""A month's number."""
YEAR: Final = r"(?:19|20)\d{2}"
_ANY_YEAR: Final = r"(?:1[34]|19|2[05])\d{2}"
"""Also of the Persian, the Islamic and the Buddhist calendar."""
_FOREIGN_WORD: Final = rf"(?![a-zA-Z]){LETTER}{{2,20}}"
_WORD: Final = rf"{LETTER}{{3,20}}"
_MONTH: Final = rf"{_NOT_IN_WORD}(?:{_MONTHS}|(?-i:May|MAY)){_WORD_ENDS}"
_ORDINAL: Final = r"(?:st|nd|rd|th|er|º|\.)?"
_OF: Final = r"[ -]?(?:of |de |d['’]|di )?"

_WORDED: Final = (
    rf"{_MONTH}\.?[ -]{{0,2}}(?:de )?{_DAY}{_ORDINAL}(?![\d:.]\d|\d),?(?: {YEAR})?"  # November 21st, 2026; Nov 21
    rf"|{_NOT_IN_WORD}{_MONTH}\.?,?(?: de)? {YEAR}{EDGE}"  # November 2026
    rf"|{EDGE}{_DAY}{_ORDINAL}{_OF}{_MONTH}"  # 21st of November, 21 novembre
    # Day, month, year: months have too many names to list, and the order is the same in most languages.
    rf"|{EDGE}{_DAY}{_ORDINAL}[ -](?:de )?{_WORD}\.?,?(?: de)?[ -]{YEAR}{EDGE}"
    rf"|{EDGE}{_DAY} {_FOREIGN_WORD}\.?,? {_ANY_YEAR}{EDGE}"
    rf"|{EDGE}{_DAY} ?[ก-ฮ]\.[ก-ฮ]\. ?\d{{2,4}}"
    r"|ngày \d{1,2} tháng|tháng \d{1,2} năm"
    rf"|(?<!\d)\d{{1,4}} ?[年년] ?{_OF_YEAR} ?[月월]|{_OF_YEAR} ?[月월] ?{_DAY} ?[日일号號]"
)
_DATE: Final = re.compile(
    r"(?a:(?<![\w.-]))\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\d-])"  # 2026-11-21
    rf"|(?<![\d./])\d{{4}}[./]{_OF_YEAR}[./]{_DAY}(?![\d./]{{0,8}}\d)"  # 2026/11/21
    rf"|(?a:(?<![\w./])){_DAY}[./]{_OF_YEAR}[./](?:\d{{4}}|\d{{2}})(?![\d./]{{0,8}}\d)"  # 21.11.2026
    rf"|(?a:(?<![\w./])){_OF_YEAR}/{_DAY}/(?:\d{{4}}|\d{{2}})(?![\d./]{{0,8}}\d)"  # 11/21/26
    rf"|{EDGE}\d{{1,2}}-\d{{1,2}}-{YEAR}{EDGE}|{EDGE}{_DAY}\. {_OF_YEAR}\. {YEAR}{EDGE}"
    r"|(?a:(?<![\w.,$€£]))(?:0[1-9]|[12]\d|3[01])\.(?:0[1-9]|1[0-2])\.(?!\w)"  # 21.11.
    rf"|\b(?:am|vom|den|dem|der|bis|ab) {_DAY}\.{_OF_YEAR}\.(?!\w)"
    rf"|{EDGE}[RHSTM]\d{{1,2}}\.{_OF_YEAR}\.{_DAY}(?![\d.]{{0,8}}\d)"  # R8.11.21, an era of Japan
    rf"|(?a:(?<![\w.-]))20\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\w.]{{0,8}}\d)"  # 20261121
    rf"|{_NOT_IN_WORD}(?:{_TODAY}){_WORD_ENDS}[^\d\n]{{0,12}}\d{{1,2}}[./-]\d{{1,2}}(?![\d./:-]{{0,8}}\d)"
    rf"|(?:今日|本日|今天|오늘|วันนี้)[^\d\n]{{0,8}}\d{{1,2}}[./-]\d{{1,2}}(?![\d./:-]{{0,8}}\d)"
    rf"|{EDGE}(?:KW|week|semaine|semana|Woche|vecka|settimana|неделя|CW) ?\d{{1,2}}{EDGE}|{EDGE}{YEAR}-?W\d{{2}}{EDGE}"
    rf"|第 ?\d{{1,2}} ?[周週]|{EDGE}Q[1-4][ /-]?{YEAR}{EDGE}|{EDGE}{YEAR}[ /-]?Q[1-4]{EDGE}"
    rf"|{_WORDED}",
    _I,
)
_NAMED: Final = re.compile(
    rf"{_WORDED}|{_NOT_IN_WORD}(?:{_WEEKDAYS}){_WORD_ENDS}|วัน(?:อาทิตย์|จันทร์|อังคาร|พุธ|พฤหัส|ศุกร์|เสาร์)"
    r"|[月火水木金土日]曜日|星期[一二三四五六日天]|周[一二三四五六日]|[월화수목금토일]요일"
    r"|thứ (?:hai|ba|tư|năm|sáu|bảy)|chủ nhật",
    _I,
)
_TODAY_IS: Final = re.compile(rf"{_NOT_IN_WORD}(?:{_TODAY}){_WORD_ENDS}|今日|本日|今天|오늘|วันนี้", _I)
_PRESENT: Final = re.compile(rf"{EDGE}(?:202\d|203\d|14\d\d|25\d\d){EDGE}")
"""A year in which a date can be today's."""

_HOUR: Final = r"(?:[01]?\d|2[0-4])"
_HAN: Final = "[〇零一二三四五六七八九十两兩]{1,3}"
_UNITS: Final = (
    r"(?:sec(?:ond)?s?|min(?:ute)?s?|h(?:ou)?rs?|hours?|Sekunden?|Minuten?|Stunden?|secondes?|heures?|segundos?|minutos?"
    r"|horas?|Std\.?|Min\.|Sek\.?|мин\.?|сек\.?|dk|sn|secondi|minut[io]|or[ae]|seconden|uur|uren|sekund\w*|minut\w*|timm\w*|timer|godzin\w*|hodin\w*"
    r"|saniye|dakika|saat|секунд\w*|минут\w*|час\w*|хвилин\w*|годин\w*|phút|giờ|giây|menit|jam|detik"
    r"|δευτερόλεπτα|λεπτά|ώρες|ثوان\w*|ثانية|دقائق|دقيقة|ساعات|ساعة|دقیقه|ساعت|ثانیه|דקות|שעות|שניות"
    r"|सेकंड|मिनट|घंटे|घंटा|সেকেন্ড|মিনিট|ঘণ্টা|நிமிடங்கள்|วินาที|นาที|ชั่วโมง|秒|分|分钟|分鐘|小时|小時|時間|초|분|시간)"
)
_AGO: Final = (
    r"(?:ago|fa|geleden|siden|sedan|temu|назад|тому|önce|trước|(?:yang )?lalu|पहले|আগে|முன்பு|ที่แล้ว|ก่อน"
    r"|前|之前|以前|전|πριν|پیش)"
)
_SINCE: Final = r"(?:vor|il y a|hace|há|för|for|منذ|قبل|לפני|πριν|przed)"
_CLOCK: Final = re.compile(
    rf"(?a:(?<![\w.:-])){_HOUR}[:h][0-5]\d(?![\d-]|:[0-9a-f]{{2}}:)"  # 14:05, 14:05:59, 14h05
    r"|\d{4}-\d{2}-\d{2}[T ]\d{2}|/\d{4}:\d{2}:\d{2}:\d{2}"
    rf"|{EDGE}\d{{8}}T\d{{4}}"  # 20261121T140559Z
    rf"|{EDGE}{_HOUR} ?[ap]\.?m{EDGE}"  # 2 pm
    rf"|{EDGE}{_HOUR}[.: ][0-5]\d ?(?:Uhr|น\.|hrs?{EDGE}|godz|[ap]\.?m{EDGE})"
    rf"|{EDGE}(?:[01]\d|2[0-3])[0-5]\d ?hrs?{EDGE}|{EDGE}{_HOUR} ?Uhr{EDGE}"  # 14.05 Uhr
    r"|(?:uhrzeit|klockan|klokken|kl|klo|kello|ora|ore|orario|alle|godzina|godz|pukul|jam|saat|время|στις|เวลา|時刻|時間)"
    rf"(?a:\b)?[^\d\w]{{0,3}}(?:\w{{2,3}}[^\d\w]{{1,2}})?{_HOUR}[.:][0-5]\d(?!\d)"  # klockan är 14.05
    rf"|{EDGE}{_HOUR} ?h ?[0-5]\d(?!\d)|{EDGE}{_HOUR} ?(?:giờ|heures?|hodin|uur){_WORD_ENDS}"
    rf"|{EDGE}{_HOUR} ?(?:часов|часа|час|ч\.?|годин\w?) ?[0-5]?\d ?(?:минут|мин|хвилин|хв)"
    rf"|{_HOUR} ?(?:बजकर|बजे|টা |வது மணி|மணி)|الساعة[^\d\n]{{0,10}}\d|(?:a las|às|alle ore) {_HOUR}{EDGE}"
    rf"|{_HOUR} ?[時时시点點] ?\d{{0,2}}|{_HAN}[時时点點](?:{_HAN}分|半|整|$)"
    rf"|{EDGE}1[5-9]\d{{8}}(?:\.\d{{1,9}}|(?:\d{{3}}){{1,3}})?{EDGE}"  # epoch seconds, and down to nanoseconds
    rf"|(?<![\d.,])\d{{1,5}}(?:[.,]\d)? ?{_UNITS} ?{_AGO}{_WORD_ENDS}"
    rf"|{_NOT_IN_WORD}{_SINCE} \d{{1,5}}(?:[.,]\d)? ?{_UNITS}"
    rf"|(?<!\d)\d{{1,5}} ?[smh] ago{EDGE}|{EDGE}uptime{EDGE}",
    _I,
)
_HAN_CLOCK: Final = re.compile(rf"{_HAN}[時时点點](?:{_HAN}分|半|整)")
_HARDWARE: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
"""An address of hardware, which looks like a clock."""
_LABEL_WORD: Final = re.compile(rf"{LETTER}{{2,}}")


def has_clock(text: str) -> bool:
    """Whether a time of day, or a time ago, stands in a text."""
    return _CLOCK.search(_HARDWARE.sub("", text)) is not None


def has_clock_in_words(text: str) -> bool:
    """Whether a time of day stands in it without a digit, as Chinese has it."""
    return _HAN_CLOCK.search(text) is not None


def has_date(text: str) -> bool:
    return _DATE.search(text) is not None


def names_a_day(text: str) -> bool:
    """Whether a month or a weekday is named, and not all of a date is numbers."""
    return _NAMED.search(text) is not None


def is_of_today(text: str) -> bool:
    """Whether a day or a month that is named is today's, and not one that somebody wrote about."""
    rest = _LABEL_WORD.findall(without_times(_NAMED.sub("", text)))
    year = _PRESENT.search(text) is not None
    return _TODAY_IS.search(text) is not None or (len(rest) <= 3 and (year or not re.search(EDGE + YEAR, text)))


def without_times(text: str) -> str:
    return _DATE.sub("", _CLOCK.sub("", text))


def words(text: str) -> int:
    """Words of two letters and more; in scripts without blanks, what stands between blanks."""
    return len(_LABEL_WORD.findall(text))
