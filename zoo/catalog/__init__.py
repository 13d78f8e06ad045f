"""Catalog: a repository's index as a static website.

Readers find an engine on ``index.html``, every model and every engine has its own page,
``report.html`` lists what changed, and ``index.json`` offers all of it to programs. The site works
without a server, without JavaScript and without any other host; the script adds live filters and
buttons that copy. :func:`zoo.catalog.site.build_site` writes it.
"""
