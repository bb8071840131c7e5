#!/usr/bin/env python3
"""Writes golden/jinja.golden.json: small templates and what transformers renders for two messages, null for an error.

They hold what chat templates lean on: Python's values and methods, jinja2's scopes, filters, tests and white space.
"""
import json

import jinja2
from make_chat_golden import Frozen, conversation
from make_golden import GOLDEN
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

MESSAGES = conversation(("system", "Hi \u00e9 <x> 'q'"), ("user", " a\u3000b "))
TEMPLATES = [
    "{{ none }}|{{ [1,'a\\'b',\"q'\",none,true,1.5,{'k':'\u00e9'}] }}|{{ (1, 'b') }}|{{ {'a':[1]} }}",
    "{{ messages[0].content|length }}{{ messages[-1]['content'][:3] }}{{ messages[0]['content'][-2:] }}{{ messages[0].content[::-1] }}{{ messages[0].content[0] }}{{ messages[0].content[-1] }}",
    "{{ 'stra\u00dfe \u00e9\u00e0\u00ff \u01c4'|upper }}{{ '\u00c0\u00c9'|lower }}{{ 'hello wOrld-foo'|title }}{{ 'hELLO'|capitalize }}{{'\u00df'.capitalize()}}",
    "{{ none|default('x') }}{{ undefinedthing|default('y') }}{{ ''|default('z',true) }}{{ none|default('w',true) }}{{ undefinedthing|default }}",
    "{{ 'a' ~ none ~ 1 ~ 1.0 ~ true ~ undef }}",
    "{{ 'a' + none }}",
    "{{ foo.bar }}",
    "{{ messages[0].foo }}|{{ messages[0].foo is defined }}|{{ messages[0]['foo'] }}",
    "{{ messages[0].foo.bar }}",
    "{{ messages[99] is defined }}{{ messages[99] }}",
    "{% set x = 1 %}{% for m in messages %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for m in messages %}{% if loop.first %}{% set y = 'f' %}{% endif %}{{ y is defined }}{% endfor %}",
    "{% set ns = namespace(items='q', first=1, a=none) %}{% set ns.a = 3 %}{{ ns.items }}{{ ns.first }}{{ ns.a }}{{ ns.zz is defined }}",
    "{% set ns = namespace(_x=1) %}a",
    "{% set d = {} %}{% set d.x = 1 %}",
    "{% for m in messages %}{% if loop.index == 1 %}text{% continue %}{% endif %}[{{ m.role }}]{% else %}none{% endfor %}",
    "{% for m in messages %}{% continue %}{% else %}none{% endfor %}",
    "{% for m in messages %}a{% if loop.index == 2 %}b{% break %}{% endif %}c{% endfor %}",
    "{% for x in [] %}a{% else %}b{% endfor %}{% for x in undefinedthing %}a{% else %}c{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for c in 'a\u00e9' %}<{{ c }}>{% endfor %}{% for k in {'a':1,'b':2} %}{{ k }}{% endfor %}{% for k,v in {'a':1}.items() %}{{k}}{{v}}{% endfor %}",
    "{% macro f(a, b='x', c=a) %}[{{ a }}{{ b }}{{ c }}{{ z }}]{% endmacro %}{% set z = 'Z' %}{{ f('1') }}{{ f(1, c=3) }}{% for z in [1] %}{{ f(2) }}{% endfor %}{{ f() }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1,2) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f(n) %}{{ n }}{{ f(n) }}{% endmacro %}{{ f(3) }}",
    "{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}in{{ messages|length }}{% endcall %}{% macro v() %}{{ caller is defined }}{% endmacro %}{{ v() }}",
    "{% macro w() %}{{ caller('x') }}{% endmacro %}{% call(u) w() %}{{ u }}!{% endcall %}",
    "{% filter upper %}abc {{ messages[0].role }}{% endfilter %}",
    "{% set x %}a {{ 1 + 1 }}\n{% endset %}[{{ x }}]",
    "{{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 4 / 2 }} 3 {{ 2 * 3.0 }} {{ 0.1 + 0.2 }} {{ -5 }} {{ 3 - -2 }} {{ true + 1 }} {{ 'ab' * 2 }} {{ [1] * 2 }}",
    "{{ 1 / 0 }}",
    "{{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ [1,[2]] == [1,[2]] }} {{ {'a':1} == {'a':1.0} }} {{ none == false }} {{ '' == none }} {{ undefa == undefb }} {{ 'x' in 'xyz' }} {{ 2 in [1,2] }} {{ 'k' in {'k':1} }} {{ 'q' not in 'abc' }} {{ undef == none }} {{ (1 == 1) != false }} {{ not 1 == 2 }}",
    "{{ 1 < 'a' }}",
    "{{ messages|selectattr('role','equalto','user')|list|length }}{% if messages|selectattr('role','equalto','nobody') %}T{% else %}F{% endif %}{{ messages|map(attribute='role')|join(',') }}{{ [1,2,3]|select('odd')|list }}{{ ['a','B']|map('upper')|list }}{{ messages|rejectattr('role','in',['user'])|map(attribute='content')|list }}",
    "{{ messages|selectattr('role','equalto','user')|length }}",
    "{{ messages|tojson }}{{ {'b':[1,2.5,none,true],'a':{}}|tojson(indent=2) }}{{ {'b':1,'a':[]}|tojson(sort_keys=true) }}{{ '\u00e9\\n\"\\\\/<>'|tojson }}{{ '\u00e9\U0001f600'|tojson(ensure_ascii=true) }}{{ [1,2]|tojson(separators=(',',':')) }}{{ 1.0|tojson }}",
    "{{ undefinedthing|tojson }}",
    "{{ ' a  b c '.split() }}{{ 'a,b,,c'.split(',') }}{{ 'a,b,c'.split(',',1) }}{{ 'a,b,c'.rsplit(',',1) }}{{ 'a b'.split(' ')[-1] }}{{ '</think>x</think>y'.split('</think>')[-1].lstrip('\\n') }}{{ 'a\\nb\\r\\nc'.splitlines() }}{{ 'k=v=w'.partition('=') }}",
    "{{ 'aaa'.replace('a','b',2) }}{{ 'aaa'|replace('a','b') }}{{ 'a\u00e9b'.replace('','-') }}{{ 'abab'|replace('ab','x',1) }}",
    "[{{ '\u3000\u00a0 x y \u2003'.strip() }}][{{ ' xx '|trim }}][{{ 'xxabxx'.strip('x') }}][{{ '--a'.lstrip('-') }}]",
    "{{ 'abc'.startswith(('x','a')) }}{{ 'abc'.endswith('bc') }}{{ 'abc'.find('c') }}{{ '\u00e9c'.find('c') }}{{ 'banana'.count('a') }}{{ '12'.isdigit() }}{{ 'a'.join(['1','2']) }}",
    "{{ '{} and {}'.format(1,'x') }}{{ '%s-%d'|format('a',3) }}{{ '{0}{1}{0}{n}'.format('a','b',n=2) }}{{ 'x%s' % 'y' }}{{ '%s %s' % (1,2) }}{{ '{{}}'.format() }}",
    "{% set l = [] %}{{ l.append(1) }}",
    "{% set d = {'a':1} %}{{ d.pop('a') }}",
    "{{ messages[0].get('x') }}{{ messages[0].get('x','d') }}{{ messages[0].get('role') }}{{ messages[0].keys()|list }}{{ messages[0].items()|list }}{{ messages[0]|length }}{{ messages[0]|items|list }}{{ messages[0]|dictsort }}",
    "{{ 1 is number }}{{ true is number }}{{ true is integer }}{{ 1.0 is float }}{{ 'a' is iterable }}{{ none is iterable }}{{ [] is sequence }}{{ {} is mapping }}{{ none is none }}{{ x is undefined }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 'a' is in ['a'] }}{{ 1 is eq 1 }}{{ false is false }}{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'x' is sequence }}{{ undef is iterable }}{{ raise_exception is defined }}{{ raise_exception is callable }}{{ none is not none }}{{ none is sameas none }}",
    "{{ [3,1,2]|sort }}{{ ['b','A','c']|sort }}{{ [1,2,3]|last }}{{ [1,2]|first }}{{ []|first }}{{ 'abc'|first }}{{ [1,2,3]|sum }}{{ [1,3,2]|max }}{{ [3,1]|min }}{{ 'abc'|reverse }}{{ [1,2]|reverse|list }}{{ [1,1,2]|unique|list }}{{ '12'|int + 1 }}{{ 'x'|int }}{{ '1.5'|float }}{{ 3|string + 'a' }}{{ -3|abs }}{{ 'a\\nb'|indent }}{{ 'a\\n\\nb\\n'|indent(2, true) }}{{ 'a\\n\\nb'|indent(2, blank=true) }}",
    "{{ 'a<b'|safe }}{{ '<x>'|e }}{{ ('a'|safe) ~ '<' }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem is defined }}{{ loop.nextitem.role if loop.nextitem is defined }}{{ loop.cycle('a','b') }};{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}e{% endfor %}",
    "  {% if true %}\n  a\n  {% endif %}\nb\n  {{ 1 }}\n {# c #}\nd {%- if true %} e {% endif -%}  f\n\n",
    "a{% if true %}b{% endif %}",
    "a  {% if true %}  b{% endif %}\n",
    "\n\n{{ 'x' }}\n{%- set a = 1 %}\n\n{#- k -#}\n z\r\ny\r\n{% if 1 %}\r\nq{% endif %}\r\n",
    "{% generation %}abc{% endgeneration %}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5,0,-2)|list }}",
    "{% for i in range(200000) %}{% endfor %}",
    "{{ strftime_now('%Y-%m-%d %H:%M') }}{{ strftime_now('%d %B %Y') }}",
    "{{ raise_exception('no <b> ' ~ messages|length) }}",
    "{{ 'a' if messages else 'b' }}{{ 'x' if false }}{{ ('x' if false) is defined }}{{ 'a' if 0 else 'b' if 0 else 'c' }}",
    "{{ none or 'd' }}{{ '' or [] or 0 }}{{ 1 and 'x' }}{{ not none }}{{ undef or 'u' }}{{ not undef }}",
    "{{ 'a' 'b' }}{{ \"it's\" }}{{ 'tab\\tnl\\n\\\\' }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = (3, 4) %}{{ c }}{{ d }}{% for a, b in [(1,2),(3,4)] %}{{ a }}{{ b }}{% endfor %}",
    "{{ messages.0.role }}{{ (1,2).0 }}{{ 'abc'.0 }}",
    "{{ 1|nosuch }}",
    "{{ nosuch() }}",
    "{{ messages() }}",
    "{{ 1.0 }} {{ 100000000000000000000.0 }} {{ 0.00001 }} {{ 2.50 }} {{ 123456789.125 }}",
    "{{ '\U0001f600a'[0] }}{{ '\U0001f600a'|length }}{{ ['\U0001f600'] }}{{ ['\\n\\'\"'] }}{{ ['\u00a0'] }}",
    "{{ [1,2,3,4][1:] }}{{ [1,2,3,4][:-1] }}{{ [1,2,3,4][::2] }}{{ [1,2,3][::-1] }}{{ (1,2,3)[1:] }}{{ [1,2][5:] }}{{ messages[1:]|length }}",
    "{% for m in messages %}{% for q in [1] %}{% set z = m.role %}{% endfor %}{{ z is defined }}{% endfor %}",
    "{% if true %}{% set q = 5 %}{% endif %}{{ q }}",
    "{{ messages|join(', ', attribute='role') }}{{ [1,none,'x']|join('-') }}{{ undefinedthing|join }}",
    "{{ dict(a=1, b=2) }}{{ dict({'x':1}, y=2).y }}",
    "{{ {'items': 5}['items'] }}{{ {'keys': 1, 'default': 2, 'length': 3}.default }}{{ {'length': 3}.length }}",
    "{{ none in [none] }}{{ 1 in none }}",
    "{{ '\u00e9' ~ '\u00fc' }}{{ 'abc'|replace('b', 1) }}",
    "{{ namespace(x=1).x }}{% set ns = namespace() %}{% set ns._y = 1 %}",
    "{{ 'x' ~ bos_token ~ eos_token }}{{ pad_token is defined }}",
]  # fmt: skip


def render(tokenizer, template):
    try:
        return tokenizer.apply_chat_template(MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True)
    except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError, OverflowError, RecursionError):
        return None


if __name__ == "__main__":
    chat_template_utils.datetime = Frozen
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "llama3")
    rows = [[template, render(tokenizer, template)] for template in TEMPLATES]
    (GOLDEN / "jinja.golden.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(f"jinja.golden.json: {len(rows)} templates")
