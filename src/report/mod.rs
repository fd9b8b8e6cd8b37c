//! Reports: HTML, Markdown, terminal and charts, from numbers that others computed.
