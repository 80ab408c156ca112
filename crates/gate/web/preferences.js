// Language, appearance and notices: the same buttons at the door and in the settings.

import { byId } from './dom.js';
import { chooseLanguage, currentLanguage, onLanguage, t } from './i18n.js';
import { Notices } from './notices.js';
import { setTheme, theme } from './settings.js';

export class Preferences {
  constructor() {
    for (const button of document.querySelectorAll('[data-language]')) {
      button.addEventListener('click', () => chooseLanguage(button.dataset.language));
    }
    for (const button of document.querySelectorAll('[data-theme-choice]')) {
      button.addEventListener('click', () => {
        setTheme(button.dataset.themeChoice);
        this.#show();
      });
    }
    const dialog = byId('settings');
    byId('open-settings').addEventListener('click', () => {
      this.#show();
      dialog.showModal();
    });
    // A click beside the dialog hits the dialog itself, its backdrop; one inside hits a child.
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
    byId('notices-popup').addEventListener('change', (event) => {
      Notices.popups = event.target.checked;
    });
    byId('notices-system').addEventListener('change', async (event) => {
      await Notices.setSystem(event.target.checked);
      this.#show();
    });
    onLanguage(() => this.#show());
    this.#show();
  }

  #show() {
    const chosen = theme();
    for (const button of document.querySelectorAll('[data-language]')) {
      button.setAttribute('aria-pressed', String(button.dataset.language === currentLanguage()));
    }
    for (const button of document.querySelectorAll('[data-theme-choice]')) {
      button.setAttribute('aria-pressed', String(button.dataset.themeChoice === chosen));
    }
    const permission = Notices.systemPermission;
    byId('notices-popup').checked = Notices.popups;
    byId('notices-system').checked = Notices.system;
    byId('notices-system').disabled = permission === 'denied';
    byId('notices-system-row').hidden = permission === 'absent';
    byId('notices-system-text').textContent = t(
      permission === 'denied' ? 'settings.notices.denied' : 'settings.notices.system.text',
    );
  }
}
